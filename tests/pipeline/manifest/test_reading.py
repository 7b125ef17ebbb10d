"""A manifest's rows become clips: defaults, given values, carried columns, and what is kept of each row."""

import hashlib
import json
import struct
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import StoreError
from pipeline.inputs.access import InputAccess
from pipeline.inputs.images import load_image
from pipeline.manifest.cells import COLUMNS
from pipeline.manifest.ids import MAX_SEED, SAFE_ID, default_seed
from pipeline.manifest.said import said_row
from pipeline.store import open_store
from tests.manifests import (
    HASH_CLIP,
    RULES,
    STORAGE,
    count_words,
    findings,
    only,
    picture,
    read,
    table_of,
    write,
)


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


def test_a_prompt_with_control_and_format_characters_is_kept_letter_for_letter(tmp_path: Path) -> None:
    prompt = "\u200b a\x00 \u200d"
    assert only(read(write(tmp_path, {"prompt": [prompt]}))).prompt == prompt


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
    assert load_image(image, storage=STORAGE, access=InputAccess(roots=(bucket,))) == picture()
    assert list(read(f"{bucket}/a b").clips) == list(read(f"{bucket}/a b/").clips) == list(manifest.clips)
    (line,) = findings(f"{bucket}/a b/gone.parquet")
    assert "no such file" in line
    with pytest.raises(StoreError, match="the bucket does not exist"):
        read("s3://no-such-bucket/m.parquet")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("guidnace", "guidance"),
        ("Prompt", "prompt"),
        ("negative-prompt", "negative_prompt"),
        ("Negative Prompt", "negative_prompt"),
        ("clip.id", "clip_id"),
        ("seeds", "seed"),
    ],
)
def test_a_column_that_is_almost_ours_is_carried_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, near: str
) -> None:
    manifest = read(write(tmp_path, {"prompt": ["a"], name: ["x"], "note": ["y"], "title": ["z"]}))
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"column {name} is carried and says nothing; was {near} meant?"
    ]
    assert manifest.carried == (name, "note", "title")


def test_what_is_kept_of_a_row_is_small_and_right(tmp_path: Path) -> None:
    columns = {
        "prompt": ["a", "b " * 300, "c"],
        "clip_id": ["A" * 128, None, None],
        "audio": [True, False, None],
        "priority": [None, 3, -1],
        "steps": [None, 5, None],
        "ratio": ["1:1", None, None],
        "image": [None, None, {"bytes": picture(400, 400), "path": None}],
    }
    manifest = read(write(tmp_path, columns))
    index, clips = manifest.index, list(manifest.clips)
    assert index.size_bytes < 400 * len(index)
    assert [index.clip_id(n) for n in range(3)] == [clip.clip_id for clip in clips]
    assert [index.settings_hash(n) for n in range(3)] == [HASH_CLIP(clip) for clip in clips]
    assert index.hash_texts().to_pylist() == [HASH_CLIP(clip) for clip in clips]
    assert index.seeds.tolist() == [clip.seed for clip in clips]
    assert [index.sizes[code].shape for code in index.size_codes] == [clip.shape for clip in clips]
    assert [index.sizes[code].ratio for code in index.size_codes] == ["1:1", "16:9", "1:1"]
    assert (index.has_image.tolist(), index.audio.tolist()) == ([False, False, True], [True, False, True])
    assert (index.priorities.tolist(), index.steps.tolist()) == ([0, 3, -1], [32, 5, 32])
    assert index.text_tokens.tolist() == [1, 300, 1]
    assert manifest.given.images[0].data is None
    assert clips[2].image is not None
    assert clips[2].image.data == picture(400, 400), "read again from the row"


def test_tokens_are_counted_only_where_they_may_be_too_many(tmp_path: Path) -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text.encode()) + 2

    rules = replace(RULES, count_tokens=count, spare_tokens=2)
    texts = ["x" * 638, "红" * 212 + "xx", "x" * 639, "红" * 213]
    found = findings(write(tmp_path, {"prompt": texts}), rules=rules)
    assert counted == texts[2:]
    assert found == [f"row {row}, column prompt: got 641 tokens, expected at most 640 tokens" for row in (2, 3)]
