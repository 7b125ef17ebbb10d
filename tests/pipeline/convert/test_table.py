"""CSV, JSON Lines and JSON become Parquet: every value is kept, typed or complained of by row and column."""

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.convert import rows as rows_module
from pipeline.convert import table as table_module
from pipeline.convert.rows import TextFormat
from pipeline.convert.table import TextTable
from pipeline.errors import ManifestError
from pipeline.manifest.findings import Findings
from tests.manifests import picture
from tests.models import SIZES

PIXELS = base64.b64encode(b"\x89PNG bytes").decode()


def table(folder: Path, text: str | bytes, file_format: TextFormat) -> tuple[pa.Table, list[str]]:
    """What becomes of a file, and what was said about it."""
    path = folder / f"rows.{file_format}"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    findings = Findings()
    rows = TextTable(path=path, file_format=file_format, name="rows", sizes=SIZES)
    rows.survey(findings)
    rows.write(folder / "rows.parquet")
    return pq.read_table(folder / "rows.parquet"), [str(finding) for finding in findings.in_order()]


def lines(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def clean(folder: Path, text: str | bytes, file_format: TextFormat) -> pa.Table:
    made, said = table(folder, text, file_format)
    assert said == []
    return made


def fatal(folder: Path, text: str | bytes, file_format: TextFormat) -> str:
    with pytest.raises(ManifestError) as caught:
        table(folder, text, file_format)
    (finding,) = caught.value.findings
    return str(finding)


def test_csv_cells_have_the_types_of_the_manifest_and_empty_ones_are_null(tmp_path: Path) -> None:
    text = "\ufeffprompt, seed ,audio,guidance,duration,day\r\na cat,7,TRUE,,5,1\r\n"
    text += '"two\nlines, and ""more""",,no,2.5, ,\r\n'
    made = clean(tmp_path, text, "csv")
    assert made.to_pylist() == [
        {"prompt": "a cat", "seed": 7, "audio": True, "guidance": None, "duration": 5, "day": 1},
        {
            "prompt": 'two\nlines, and "more"',
            "seed": None,
            "audio": False,
            "guidance": 2.5,
            "duration": None,
            "day": None,
        },
    ]
    assert [str(each.type) for each in made.schema] == ["string", "int64", "bool", "double", "int64", "int64"]


@pytest.mark.parametrize("text", ["true", "TRUE", "Yes", "y", "1", "on", " t "])
def test_spellings_of_true(tmp_path: Path, text: str) -> None:
    assert clean(tmp_path, f"prompt,audio\nx,{text}\n", "csv")["audio"].to_pylist() == [True]


@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        ("seed", "seven", "an integer"),
        ("seed", "1.5", "an integer"),
        ("seed", "99999999999999999999", "an integer"),
        ("duration", "5s", "an integer"),
        ("audio", "maybe", "true or false"),
        ("guidance", "nan", "a number"),
        ("guidance", "2;5", "a number"),
        ("priority", "null", "an integer"),
        ("image", "data:image/png;base64,%%%", "bytes in base64"),
    ],
)
def test_a_cell_that_does_not_parse_is_a_finding(tmp_path: Path, column: str, cell: str, expected: str) -> None:
    made, (said,) = table(tmp_path, f'prompt,{column}\nx,\ny,"{cell}"\n', "csv")
    assert said.startswith(f"row 1, column {column}: got ")
    assert said.endswith(f"expected {expected}")
    assert made[column].to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("prompt", 5, "text"),
        ("prompt", ["x"], "text"),
        ("seed", True, "an integer"),
        ("seed", 1.5, "an integer"),
        ("seed", 2**63, "an integer"),
        ("audio", 2, "true or false"),
        ("audio", [], "true or false"),
        ("guidance", "high", "a number"),
        ("guidance", False, "a number"),
        ("image", 3, "an address, a data: URL, or an object of bytes (in base64) and path"),
        ("image", {"url": "x"}, "an address, a data: URL, or an object of bytes (in base64) and path"),
        ("image", {"bytes": "!"}, "bytes in base64"),
    ],
)
def test_a_json_value_of_the_wrong_kind_is_a_finding(tmp_path: Path, column: str, value: Any, expected: str) -> None:
    _, (said,) = table(tmp_path, lines({"prompt": "x", column: value}), "jsonl")
    assert said.startswith(f"row 0, column {column}: got ")
    assert said.endswith(f"expected {expected}")


def test_numbers_that_are_texts_and_whole_floats_are_taken(tmp_path: Path) -> None:
    made = clean(tmp_path, lines({"prompt": "x", "seed": "12", "duration": 5.0, "guidance": 3, "audio": "no"}), "jsonl")
    assert made.to_pylist() == [{"prompt": "x", "seed": 12, "duration": 5, "guidance": 3.0, "audio": False}]


def test_images_come_as_addresses_data_urls_and_objects(tmp_path: Path) -> None:
    given = ["a.png", f"data:image/png;base64,{PIXELS}", {"bytes": PIXELS, "path": "b.png"}, {"path": "c.png"}, None]
    meant = [
        {"bytes": None, "path": "a.png"},
        {"bytes": b"\x89PNG bytes", "path": None},
        {"bytes": b"\x89PNG bytes", "path": "b.png"},
        {"bytes": None, "path": "c.png"},
        None,
    ]
    made = clean(tmp_path, lines(*({"prompt": "x", "image": image} for image in given)), "jsonl")
    assert made["image"].to_pylist() == meant
    cells = [image if isinstance(image, str) else json.dumps(image).replace('"', '""') for image in given[:4]]
    made = clean(tmp_path, "prompt,image\n" + "".join(f'x,"{cell}"\n' for cell in cells), "csv")
    assert made["image"].to_pylist() == meant[:4]
    assert clean(tmp_path, lines({"image": "a.png"}), "jsonl").schema.field("image").type == pa.string()


def test_carried_csv_columns_are_numbers_only_where_their_text_would_come_back(tmp_path: Path) -> None:
    columns = {
        "whole": ["1", "-20"],
        "real": ["1", "2.5"],
        "version": ["1", "2.50"],
        "truth": ["true", "false"],
        "zip": ["007", "1"],
        "hash": ["12e45", "1"],
        "long": ["0.12345678901234567", "1"],
        "huge": ["12345678901234567890", "1"],
        "mixed": ["1", "true"],
        "none": ["", ""],
    }
    cells = zip(*columns.values(), strict=True)
    text = "\n".join(",".join(row) for row in [["prompt", *columns], *(["x", *row] for row in cells)])
    made = clean(tmp_path, text, "csv")
    assert {name: made[name].to_pylist() for name in columns} == columns | {
        "whole": [1, -20],
        "real": [1.0, 2.5],
        "truth": [True, False],
        "none": [None, None],
    }


def test_carried_json_columns_keep_their_values(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "n": 1, "wide": 2**60, "tags": ["x"], "deep": {"a": {"b": [1]}}, "any": 1, "empty": {}},
        {"prompt": "b", "n": 1.5, "wide": 3, "tags": [], "deep": {"a": None, "c": "y"}, "any": "t", "late": "z"},
        {"prompt": "c", "n": None, "any": {"k": [1, "é"]}},
    ]
    made = clean(tmp_path, lines(*rows), "jsonl").to_pylist()
    assert [row["n"] for row in made] == [1.0, 1.5, None]
    assert [row["wide"] for row in made] == [2**60, 3, None]
    assert [row["tags"] for row in made] == [["x"], [], None]
    assert made[0]["deep"] == {"a": {"b": [1]}, "c": None}
    assert made[1]["deep"] == {"a": None, "c": "y"}
    assert [row["any"] for row in made] == ["1", "t", '{"k": [1, "é"]}']
    assert [row["empty"] for row in made] == ["{}", None, None]
    assert [row["late"] for row in made] == [None, "z", None]


def test_objects_with_ever_new_keys_become_texts(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "counts": {f"key{n}": n}} for n in range(rows_module.MAX_COLUMNS)]
    made = clean(tmp_path, lines(*rows), "jsonl")
    assert made["counts"].to_pylist()[7] == '{"key7": 7}'


def test_a_row_that_cannot_be_read_keeps_its_place(tmp_path: Path) -> None:
    text = '{"prompt": "a"}\n{"prompt": \n\n[1]\n{"prompt": "b", "prompt": "c"}\n{"prompt": "d"}\n'
    made, said = table(tmp_path, text, "jsonl")
    assert made["prompt"].to_pylist() == ["a", "unread", "unread", "unread", "d"]
    assert [each.split(",")[0] for each in said] == ["row 1", "row 2", "row 3"]
    assert "expected one JSON object a line" in said[0]
    assert "got [1], expected a JSON object" in said[1]
    assert "the key 'prompt' is given twice" in said[2]
    made, said = table(tmp_path, 'prompt,seed\na,1\nb\nc,"x"y\nd,1,2\ne,5\n', "csv")
    assert made["prompt"].to_pylist() == ["a", "unread", "unread", "unread", "e"]
    assert said[0] == "row 1, got 1 cells, expected 2, as many as there are columns"
    assert said[1].startswith("row 2, got a row that is not CSV (")
    assert said[2] == "row 3, got 3 cells, expected 2, as many as there are columns"


def test_text_that_is_not_utf_8_is_a_finding(tmp_path: Path) -> None:
    _, said = table(tmp_path, b"prompt,note\nx,\xff\n\xe9t\xe9,\n", "csv")
    assert [each.partition(": got")[0] for each in said] == ["row 0, column note", "row 1, column prompt"]
    _, said = table(tmp_path, '{"prompt": "\\ud800", "note": ["\\udfff"], "k": {"\\ud800": 1}}\n', "jsonl")
    assert [each.partition(": got")[0] for each in said] == [
        f"row 0, column {name}" for name in ("prompt", "note", "k")
    ]
    _, said = table(tmp_path, '{"prompt": "x", "\\ud800": 1, "": 2}\n', "jsonl")
    assert len(said) == 2


def test_json_is_an_array_of_objects_or_one(tmp_path: Path) -> None:
    assert clean(tmp_path, '[{"prompt": "a"},\n {"prompt": "b"}]', "json")["prompt"].to_pylist() == ["a", "b"]
    assert clean(tmp_path, '{"prompt": "a"}', "json")["prompt"].to_pylist() == ["a"]


@pytest.mark.parametrize(
    ("text", "file_format", "said"),
    [
        ("", "csv", "got an empty file, expected a first row with the names of the columns"),
        ("prompt,seed\n", "csv", "got no rows, expected at least one"),
        ("", "jsonl", "got no rows, expected at least one"),
        ("[]", "json", "got no rows, expected at least one"),
        ("prompt,,x\na,b,c\n", "csv", "got a column without a name, the 2th of 3, expected a name for every column"),
        ("prompt,prompt\na,b\n", "csv", "got 2 columns of the name 'prompt', expected one"),
        ("prompt\nx\n".encode("utf-16"), "csv", "got text in UTF-16, expected text in UTF-8"),
        ("3", "json", "got JSON that is 3, expected an array of objects, or one object"),
        ("[" * 100_000, "json", "which is nested too deeply"),
        ("{]", "json", "got 2 bytes that are not JSON"),
        ("9" * 5000, "json", "got 5000 bytes that are not JSON"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, text: str | bytes, file_format: TextFormat, said: str) -> None:
    assert said.removeprefix("which is ") in fatal(tmp_path, text, file_format)


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (
        ("MAX_LINE_BYTES", 1000),
        ("MAX_JSON_BYTES", 2000),
        ("MAX_LINE_VALUES", 50),
        ("MAX_JSON_VALUES", 60),
    ):
        monkeypatch.setattr(rows_module, name, most)
    assert "a line of more than" in fatal(tmp_path, "x" * 1001, "jsonl")
    assert "JSON Lines may be of any size" in fatal(tmp_path, " " * 2001, "json")
    assert "JSON of too many values" in fatal(tmp_path, "[" + "[],[]," * 40 + "1]", "json")
    _, (said,) = table(tmp_path, '{"a": [' + "[]," * 60 + "1]}\n", "jsonl")
    assert "a line of too many values, expected at most 50" in said
    monkeypatch.setattr(table_module, "MAX_COLUMNS", 3)
    assert "at most 3 columns" in fatal(tmp_path, lines({"a": 1, "b": 1, "c": 1, "d": 1}), "jsonl")


def test_rows_keep_their_order_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "BATCH_ROWS", 7)
    made = clean(tmp_path, lines(*({"prompt": f"p{n}", "n": n} for n in range(100))), "jsonl")
    assert made["n"].to_pylist() == list(range(100))
    assert pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups > 10


def test_a_request_of_the_hosted_api(tmp_path: Path) -> None:
    request = {
        "model": "happyhorse-1.0-i2v",
        "clip_id": "mine",
        "input": {"prompt": "a cat", "media": [{"type": "first_frame", "url": "https://example.com/a.png"}]},
        "parameters": {"resolution": "1080P", "ratio": "16:9", "duration": 5, "seed": 42, "watermark": False},
    }
    meant = {
        "model": "happyhorse-1.0-i2v",
        "clip_id": "mine",
        "prompt": "a cat",
        "image": "https://example.com/a.png",
        "resolution": "1080P",
        "ratio": "16:9",
        "duration": 5,
        "seed": 42,
        "parameters.watermark": False,
    }
    assert clean(tmp_path, lines(request), "jsonl").to_pylist() == [meant]
    assert clean(tmp_path, json.dumps([request]), "json").to_pylist() == [meant]


@pytest.mark.parametrize("name", ["img_url", "image_url", "first_frame_url"])
def test_other_names_of_the_first_frame(tmp_path: Path, name: str) -> None:
    url = "data:image/png;base64," + base64.b64encode(picture()).decode()
    made = clean(tmp_path, lines({"input": {"prompt": "x", name: url, "negative_prompt": "y"}}), "jsonl")
    assert made.to_pylist() == [{"prompt": "x", "image": {"bytes": picture(), "path": None}, "negative_prompt": "y"}]


@pytest.mark.parametrize(
    ("part", "name", "value", "said"),
    [
        ("parameters", "size", "17*4", "column parameters.size: got '17*4', expected one of 64*64, 80*46"),
        ("parameters", "size", 5, "column parameters.size: got 5, expected one of "),
        ("input", "media", [{"type": "reference_image", "url": "x"}], "which is first_frame or driving_audio"),
        ("input", "video_url", "x", "column input.video_url: got 'x', expected nothing"),
        ("input", "seed", 8, "column seed: got 7 and 8, expected one of them"),
    ],
)
def test_what_a_request_asks_for_and_cannot_be_had(tmp_path: Path, part: str, name: str, value: Any, said: str) -> None:
    request: dict[str, Any] = {"seed": 7, "input": {"prompt": "x"}, "parameters": {}}
    request[part][name] = value
    _, (finding,) = table(tmp_path, lines(request), "jsonl")
    assert said in finding


def test_a_size_in_pixels_is_a_resolution_and_a_ratio(tmp_path: Path) -> None:
    made = clean(tmp_path, lines({"input": {"prompt": "x"}, "parameters": {"size": "160*92"}}), "jsonl")
    assert made.to_pylist() == [{"prompt": "x", "resolution": "128P", "ratio": "16:9"}]


def test_input_that_is_no_object_is_a_carried_column(tmp_path: Path) -> None:
    assert clean(tmp_path, lines({"prompt": "x", "input": "y"}), "jsonl").to_pylist() == [{"prompt": "x", "input": "y"}]
