"""A manifest is read whole: every mistake said at once, with row, column, value and what was expected."""

import hashlib
import json
import struct
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.cells import COLUMNS
from pipeline.errors import ManifestError, StoreError
from pipeline.findings import Findings
from pipeline.ids import MAX_SEED, SAFE_ID, default_seed
from pipeline.image_access import ImageAccess
from pipeline.images import load_image
from pipeline.said import said_row
from pipeline.store import open_store
from tests.manifests import RULES, STORAGE, count_words, findings, only, picture, read, table_of, write


def test_a_prompt_alone_gets_every_default(tmp_path: Path) -> None:
    clip = only(read(write(tmp_path, {"prompt": ["a red ball"]})))
    assert (clip.prompt, clip.negative_prompt, clip.image, clip.audio) == ("a red ball", "blurry", None, True)
    assert (clip.resolution, clip.ratio, clip.duration_s) == ("64P", "16:9", 3)
    assert (clip.steps, clip.guidance, clip.priority, clip.row) == (32, None, 0, 0)
    assert (clip.shape.num_frames, clip.shape.height, clip.shape.width, clip.shape.num_samples) == (36, 46, 80, 72000)
    assert SAFE_ID.fullmatch(clip.clip_id)
    assert clip.seed == default_seed(clip.clip_id)


def test_every_column_is_taken_as_given(tmp_path: Path) -> None:
    row = {
        "prompt": "a",
        "clip_id": "A.b_c-9",
        "audio": False,
        "resolution": "128P",
        "ratio": "1:1",
        "duration": 5,
        "seed": MAX_SEED,
        "negative_prompt": "",
        "steps": 4,
        "guidance": 3.5,
        "priority": -2,
    }
    clip = only(read(write(tmp_path, pa.Table.from_pylist([row]))))
    assert (clip.clip_id, clip.audio, clip.resolution, clip.ratio) == ("A.b_c-9", False, "128P", "1:1")
    assert (clip.duration_s, clip.seed, clip.negative_prompt) == (5, MAX_SEED, "")
    assert (clip.steps, clip.guidance, clip.priority) == (4, 3.5, -2)


def test_nulls_mean_the_default(tmp_path: Path) -> None:
    plain = read(write(tmp_path, {"prompt": ["a"]}))
    others = {name: pa.nulls(1) for name in COLUMNS if name != "prompt"}
    nulls = read(write(tmp_path, {"prompt": ["a"], **others}, "n.parquet"))
    assert list(nulls.clips) == list(plain.clips)


def test_zero_and_the_empty_text_are_values(tmp_path: Path) -> None:
    clip = only(read(write(tmp_path, {"prompt": ["a"], "seed": [0], "negative_prompt": [""], "guidance": [0.0]})))
    assert (clip.seed, clip.negative_prompt, clip.guidance) == (0, "", 0.0)


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.int8(), pa.uint64(), pa.int64()])
def test_whole_numbers_of_any_type_are_integers(tmp_path: Path, kind: pa.DataType) -> None:
    """pandas turns a column of integers with a gap into floats; NaN is its null."""
    gap = float("nan") if pa.types.is_floating(kind) else None
    table = {"prompt": ["a", "b"], "seed": pa.array([7, gap], kind), "duration": pa.array([4, None], kind)}
    first, second = read(write(tmp_path, table)).clips
    assert (first.seed, first.duration_s) == (7, 4)
    assert isinstance(first.seed, int)
    assert (second.seed, second.duration_s) == (default_seed(second.clip_id), 3)


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_of_any_arrow_type(tmp_path: Path, kind: pa.DataType) -> None:
    assert (
        only(read(write(tmp_path, {"prompt": pa.array(['红色的球\n"q"'], pa.string()).cast(kind)}))).prompt
        == '红色的球\n"q"'
    )


CELLS: list[tuple[str, Any, str]] = [
    ("prompt", "", "row 1, column prompt: got '', expected some text"),
    ("prompt", None, "row 1, column prompt: got null, expected some text"),
    ("prompt", " \n\t", "row 1, column prompt: got ' \\n\\t', expected some text"),
    ("prompt", "\u200b\x00\ufeff \x1b", "row 1, column prompt: got '\\u200b\\x00\\ufeff \\x1b', expected some text"),
    ("prompt", "x" * 5001, "row 1, column prompt: got 5001 characters, expected at most 5000 characters"),
    (
        "prompt",
        "红" * 2501 + "x" * 100,
        "row 1, column prompt: got 2601 characters (more than half are CJK), expected at most 2500 characters",
    ),
    ("prompt", "w " * 641, "row 1, column prompt: got 641 tokens, expected at most 640 tokens"),
    ("negative_prompt", "w " * 700, "row 1, column negative_prompt: got 700 tokens, expected at most 640 tokens"),
    (
        "clip_id",
        "../../etc/passwd",
        "row 1, column clip_id: got '../../etc/passwd', "
        "expected 1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit",
    ),
    (
        "clip_id",
        "",
        "row 1, column clip_id: got '', expected 1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit",
    ),
    (
        "clip_id",
        "x" * 129,
        f"row 1, column clip_id: got '{'x' * 59}... (131 characters), "
        "expected 1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit",
    ),
    (
        "clip_id",
        "FIRST",
        "row 1, column clip_id: got 'FIRST', expected one that no other row has (row 0 has it, case is not regarded)",
    ),
    ("resolution", "1080P", "row 1, column resolution: got '1080P', expected one of 64P, 128P"),
    ("ratio", "16x9", "row 1, column ratio: got '16x9', expected one of 1:1, 16:9, 9:16"),
    ("duration", 15, "row 1, column duration: got 15, expected one of 3, 4, 5"),
    ("duration", 3.5, "row 1, column duration: got 3.5, expected an integer"),
    ("seed", -1, "row 1, column seed: got -1, expected an integer from 0 to 2147483647"),
    ("seed", 2**31, "row 1, column seed: got 2147483648, expected an integer from 0 to 2147483647"),
    ("seed", float("inf"), "row 1, column seed: got inf, expected an integer"),
    (
        "seed",
        1e300,
        f"row 1, column seed: got {str(int(1e300))[:60]}... (301 characters), expected an integer from 0 to 2147483647",
    ),
    ("steps", 0, "row 1, column steps: got 0, expected an integer from 1 to 1000"),
    ("guidance", -0.5, "row 1, column guidance: got -0.5, expected a finite number of 0 or more"),
    ("guidance", float("inf"), "row 1, column guidance: got inf, expected a finite number of 0 or more"),
    (
        "audio_in",
        "song.wav",
        "row 1, column audio_in: got 'song.wav', expected nothing: model small cannot render to a given sound",
    ),
    (
        "image",
        "gone.png",
        "row 1, column image: got 'gone.png', expected a file that is there (FOLDER/gone.png is not)",
    ),
    ("image", "", "row 1, column image: got '', expected a file below the manifest's own folder FOLDER/"),
    (
        "image",
        "../secret.png",
        "row 1, column image: got '../secret.png', expected a file below the manifest's own folder FOLDER/",
    ),
    (
        "image",
        "/etc/passwd",
        "row 1, column image: got '/etc/passwd', expected a file below the manifest's own folder FOLDER/",
    ),
    (
        "image",
        "https://host/a.png",
        "row 1, column image: got 'https://host/a.png', expected a file below the manifest's own folder FOLDER/, "
        "or a host that images.hosts lists",
    ),
    (
        "image",
        "data:image/png;base64," + "A" * 400,
        "row 1, column image: got 'data:image/png;base64,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA... (424 characters), "
        "expected another name: a part of it is longer than 230 bytes",
    ),
]


@pytest.mark.parametrize(("column", "value", "message"), CELLS, ids=[f"{c}-{str(v)[:12]!r}" for c, v, _ in CELLS])
def test_one_wrong_cell_is_one_finding(tmp_path: Path, column: str, value: Any, message: str) -> None:
    rows = [{"prompt": "fine", "clip_id": "first"}, {"prompt": "fine too", "clip_id": "second"}]
    rows[1][column] = value
    columns = {name: [row.get(name) for row in rows] for name in rows[1]}
    assert findings(write(tmp_path, columns)) == [message.replace("FOLDER", str(tmp_path))]


COLUMN_TYPES: list[tuple[str, Any, str]] = [
    ("prompt", [1], "column prompt: got a column of int64, expected a column of strings"),
    ("clip_id", [7], "column clip_id: got a column of int64, expected a column of strings"),
    ("audio", ["yes"], "column audio: got a column of string, expected a column of booleans"),
    ("duration", ["5"], "column duration: got a column of string, expected a column of integers"),
    ("seed", [True], "column seed: got a column of bool, expected a column of integers"),
    ("guidance", ["2"], "column guidance: got a column of string, expected a column of numbers"),
    (
        "image",
        [b"\x89PNG"],
        "column image: got a column of binary, expected a column of strings (addresses) or of struct{bytes, path}",
    ),
    (
        "image",
        [{"uri": "a.png"}],
        "column image: got a column of struct<uri: string>, "
        "expected a column of strings (addresses) or of struct{bytes, path}",
    ),
]


@pytest.mark.parametrize(("column", "values", "message"), COLUMN_TYPES, ids=[m.split(",")[0] for *_, m in COLUMN_TYPES])
def test_a_column_of_the_wrong_type_is_one_finding(tmp_path: Path, column: str, values: Any, message: str) -> None:
    columns = {"prompt": ["a"], column: values}
    assert findings(write(tmp_path, columns)) == [message]


def test_everything_wrong_is_said_at_once_in_the_order_of_the_rows(tmp_path: Path) -> None:
    columns = {
        "prompt": ["", "b", "c", ""],
        "clip_id": ["x", "X", "y", "a/b"],
        "seed": [-1, 2, 3, -4],
        "audio": ["no"] * 4,
    }
    found = findings(write(tmp_path, columns))
    assert [line.split(":")[0] for line in found] == [
        "column audio",
        "row 0, column prompt",
        "row 0, column seed",
        "row 1, column clip_id",
        "row 3, column clip_id",
        "row 3, column prompt",
        "row 3, column seed",
    ]


def test_a_long_list_of_findings_is_shown_in_part_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": [""] * 50, "seed": [-1] * 50})
    with pytest.raises(ManifestError) as caught:
        read(path)
    assert len(caught.value.findings) == 100
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 100 problem(s), nothing was started"
    assert lines[-2:] == [
        "  and 40 more in column prompt, expected some text",
        "  and 40 more in column seed, expected an integer from 0 to 2147483647",
    ]


def test_no_prompt_column_is_one_finding_not_one_a_row(tmp_path: Path) -> None:
    path = write(tmp_path, {"Prompt": ["a", "b"], "seed": [1, 2]})
    assert findings(path) == [
        "column prompt: got no such column (there are: Prompt, seed), expected a column of strings"
    ]


def test_an_empty_table(tmp_path: Path) -> None:
    assert findings(write(tmp_path, {"prompt": pa.array([], pa.string())})) == ["got no rows, expected at least one"]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    assert findings(write(tmp_path, table)) == ["column prompt: got 2 columns of this name, expected one"]


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(struct.pack("<ii", 0, 2)), pa.py_buffer(b"\xff\xfe")]
    )
    (line,) = findings(write(tmp_path, {"prompt": broken}))
    assert line.startswith("column prompt: got bytes that are not UTF-8")


def test_a_prompt_with_control_and_format_characters_is_kept_letter_for_letter(tmp_path: Path) -> None:
    prompt = "\u200b a\x00 \u200d"
    assert only(read(write(tmp_path, {"prompt": [prompt]}))).prompt == prompt


def test_an_image_cell_that_holds_what_nobody_can_read(tmp_path: Path) -> None:
    when = pa.array([1], pa.timestamp("us", "No/Where"))
    image = pa.StructArray.from_arrays([pa.array(["a.png"]), when], ["path", "when"])
    (line,) = findings(write(tmp_path, {"prompt": ["a"], "image": image}))
    assert line.startswith("column image: got values that cannot be read")


def test_other_columns_of_any_type_are_kept_as_they_were(tmp_path: Path) -> None:
    table = pa.table(
        {
            "prompt": ["a", "b"],
            "时间": pa.array([1, 2_000_000_000_000_000_001], pa.timestamp("ns")),
            "price": pa.array([Decimal("1.10"), None], pa.decimal128(9, 2)),
            "times": pa.array([[1, 2], []], pa.list_(pa.timestamp("ns"))),
            "far": pa.array([{"at": 253402300800000}, {"at": None}], pa.struct([("at", pa.timestamp("ms"))])),
            "tags": [["x"], []],
            "deep": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())),
            "blob": [b"\x00\xff", None],
            "score": [float("nan"), float("-inf")],
            "day": [datetime(2026, 1, 2, tzinfo=UTC), None],
        }
    )
    manifest = read(write(tmp_path, table))
    assert manifest.source.schema.equals(table.schema)
    for name in table.column_names:
        kept, said = table_of(manifest)[name].to_string(), table[name].to_string()
        assert kept == said, "as text, because NaN is not equal to itself"
    assert manifest.carried == tuple(table.column_names[1:])
    row = manifest.row(manifest.clips[0])
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert row["price"] == "1.10"
    assert row["deep"] == [{"key": "k", "value": 1}]
    assert row["score"] == "nan"
    assert row["blob"]["size_bytes"] == 2
    assert row["时间"] == "1970-01-01 00:00:00.000000001"
    assert row["times"] == ["1970-01-01 00:00:00.000000001", "1970-01-01 00:00:00.000000002"]
    assert row["far"] == {"at": "10000-01-01 00:00:00.000"}


def test_what_python_cannot_read_is_carried_all_the_same(tmp_path: Path) -> None:
    """A row is said when its clip is rendered already: too late to find fault with it."""
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(struct.pack("<ii", 0, 2)), pa.py_buffer(b"\xff\xfe")]
    )
    nowhere = pa.array([1], pa.timestamp("us", "No/Where"))
    table = pa.table(
        {
            "prompt": ["a"],
            "extra": bad,
            "large": bad.cast(pa.large_string()),
            "when": nowhere,
            "both": pa.StructArray.from_arrays([bad, nowhere], ["text", "when"]),
            "list": pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), bad),
        }
    )
    manifest = read(write(tmp_path, table))
    assert table_of(manifest).equals(table)
    said = {"sha256": hashlib.sha256(b"\xff\xfe").hexdigest(), "size_bytes": 2}
    when = "1 timestamp[us, tz=No/Where]"
    row = {"extra": said, "large": said, "when": when, "both": {"text": said, "when": when}, "list": [said]}
    assert manifest.row(manifest.clips[0]) == {"prompt": "a", **row}
    coded = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), bad)
    assert said_row(pa.record_batch({"coded": coded})) == {"coded": said}


def test_truncation_is_asked_for_and_keeps_as_much_as_fits(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": ["w " * 650 + "end", "short"]})
    first, second = read(path, rules=replace(RULES, truncate_text=True)).clips
    assert count_words(first.prompt) == 640
    assert ("w " * 650).startswith(f"{first.prompt}w"), "not one letter more would fit"
    assert second.prompt == "short"


@pytest.mark.parametrize("scheme", ["moto", pytest.param("swift", marks=pytest.mark.s3)])
def test_a_manifest_and_its_images_in_a_bucket(tmp_path: Path, request: pytest.FixtureRequest, scheme: str) -> None:
    bucket: str = request.getfixturevalue(f"{scheme}_s3")
    store = open_store(f"{bucket}/a b")
    store.put("img/red.png", picture())
    columns = {"prompt": ["红色的球", "b"], "image": ["img/red.png", f"{bucket}/a b/img/red.png"], "note": ["一", "二"]}
    store.put_file("m.parquet", write(tmp_path, columns))
    manifest = read(f"{bucket}/a b/m.parquet")
    assert [clip.prompt for clip in manifest.clips] == ["红色的球", "b"]
    image = manifest.clips[0].image
    assert image is not None
    assert image.uri == f"{bucket}/a b/img/red.png"
    assert load_image(image, storage=STORAGE, access=ImageAccess(roots=(bucket,))) == picture()
    assert list(read(f"{bucket}/a b").clips) == list(read(f"{bucket}/a b/").clips) == list(manifest.clips)
    (line,) = findings(f"{bucket}/a b/gone.parquet")
    assert "no such file" in line
    with pytest.raises(StoreError, match="the bucket does not exist"):
        read("s3://no-such-bucket/m.parquet")


def test_findings_of_a_row_keep_the_order_of_the_checks() -> None:
    found = Findings()
    for row, column in ((2, "b"), (0, "z"), (2, "a"), (-1, "c")):
        found.add(row, column, "x", "y")
    assert [(each.row, each.column) for each in found.in_order()] == [(-1, "c"), (0, "z"), (2, "b"), (2, "a")]
