"""Every column and kind of mistake with its exact message: row, column, what was got and what was expected."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from model.config import DistilledConfig
from pipeline.errors import ManifestError
from tests.manifests import MODEL, RULES, findings, only, read, write

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
    (
        "priority",
        2**31,
        "row 1, column priority: got 2147483648, expected an integer from -2147483647 to 2147483647",
    ),
    ("steps", 0, "row 1, column steps: got 0, expected an integer from 1 to 1000"),
    ("guidance", -0.5, "row 1, column guidance: got -0.5, expected a finite number of 0 or more"),
    ("guidance", float("inf"), "row 1, column guidance: got inf, expected a finite number of 0 or more"),
    (
        "audio_in",
        "song.wav",
        "row 1, column audio_in: got 'song.wav', expected a file that is there (FOLDER/song.wav is not)",
    ),
    (
        "image",
        "gone.png",
        "row 1, column image: got 'gone.png', expected a file that is there (FOLDER/gone.png is not)",
    ),
    (
        "image",
        "",
        "row 1, column image: got '', expected a file below the manifest's own folder FOLDER/ "
        "(images.roots=[...] allows more)",
    ),
    (
        "image",
        "../secret.png",
        "row 1, column image: got '../secret.png', expected a file below the manifest's own folder FOLDER/ "
        "(images.roots=[...] allows more)",
    ),
    (
        "image",
        "/etc/passwd",
        "row 1, column image: got '/etc/passwd', expected a file below the manifest's own folder FOLDER/ "
        "(images.roots=[...] allows more)",
    ),
    (
        "image",
        "https://host/a.png",
        "row 1, column image: got 'https://host/a.png', expected a file below the manifest's own folder FOLDER/ "
        "(images.roots=[...] allows more), or a host that images.hosts lists",
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
    assert lines[0] == f"{path}: 100 problems, nothing was started"
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


def test_an_image_cell_that_holds_what_nobody_can_read(tmp_path: Path) -> None:
    when = pa.array([1], pa.timestamp("us", "No/Where"))
    image = pa.StructArray.from_arrays([pa.array(["a.png"]), when], ["path", "when"])
    (line,) = findings(write(tmp_path, {"prompt": ["a"], "image": image}))
    assert line.startswith("column image: got values that cannot be read")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "negative_prompt",
            "b",
            "column negative_prompt: got 'b', expected nothing: model small is not guided",
        ),
        ("guidance", 3.0, "column guidance: got 3.0, expected nothing: model small is not guided"),
    ],
)
def test_what_a_distilled_model_does_not_take(tmp_path: Path, column: str, value: Any, message: str) -> None:
    model = replace(MODEL, first_stage="distilled", distilled=DistilledConfig(steps=8))
    rules = replace(RULES, model=model)
    path = write(tmp_path, {"prompt": ["a"], column: [value]})
    assert findings(path, rules=rules) == [f"row 0, {message}"]
    plain = only(read(write(tmp_path, {"prompt": ["a"]}), rules=rules))
    assert (plain.negative_prompt, plain.guidance, plain.steps) == (None, None, 8)
