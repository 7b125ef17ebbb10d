"""Whole conversions: what was checked is what arrives, there and back, and nothing arrives where anything is wrong."""

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.convert.conversion import Conversion, convert
from pipeline.errors import ConfigError, ManifestError, StoreError
from pipeline.store import open_store
from tests.manifests import MODEL, STORAGE, count_words, picture, write

DATA = Path(__file__).parents[4] / "shared" / "data"  # beside the checkout
TEXTS = ("csv", "jsonl", "json")


def run(source: Path | str, target: Path | str, **settings: Any) -> int:
    given: dict[str, Any] = {"storage": STORAGE, "model": MODEL, "count_tokens": count_words} | settings
    return convert(Conversion(source=str(source), target=str(target), **given))


def refused(source: Path | str, target: Path | str, **settings: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        run(source, target, **settings)
    assert not Path(target).exists()
    return [str(finding) for finding in caught.value.findings]


def rows(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


COLUMNS: Mapping[str, Any] = {
    "prompt": ["a cat", 'two\nlines, "quoted"\r\n', "丹凤眼，闭眼姿态"],
    "clip_id": ["a", "007", None],
    "seed": pa.array([0, 2**31 - 1, None], pa.int32()),
    "audio": [True, False, None],
    "guidance": [0.1, None, 1e-7],
    "duration": pa.array([3.0, None, 5.0]),
    "negative_prompt": [" ", None, "true"],
    "priority": pa.array([None, None, None]),
    "ratio": pa.array(["1:1", None, "16:9"]).dictionary_encode(),
}
MEANT = [
    {"prompt": "a cat", "clip_id": "a", "seed": 0, "audio": True, "guidance": 0.1, "duration": 3}
    | {"negative_prompt": " ", "priority": None, "ratio": "1:1"},
    {"prompt": 'two\nlines, "quoted"\r\n', "clip_id": "007", "seed": 2**31 - 1, "audio": False, "guidance": None}
    | {"duration": None, "negative_prompt": None, "priority": None, "ratio": None},
    {"prompt": "丹凤眼，闭眼姿态", "clip_id": None, "seed": None, "audio": None, "guidance": 1e-7, "duration": 5}
    | {"negative_prompt": "true", "priority": None, "ratio": "16:9"},
]


@pytest.mark.parametrize("ending", TEXTS)
def test_known_columns_come_back_exactly(tmp_path: Path, ending: str) -> None:
    source = write(tmp_path, dict(COLUMNS))
    assert run(source, tmp_path / f"rows.{ending}") == 3
    assert run(tmp_path / f"rows.{ending}", tmp_path / "back.parquet") == 3
    assert rows(tmp_path / "back.parquet") == MEANT
    assert pq.read_schema(tmp_path / "back.parquet").names == list(COLUMNS)


@pytest.mark.parametrize("ending", TEXTS)
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_images_come_back_as_bytes_and_addresses(tmp_path: Path, ending: str, kind: pa.DataType) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    images = [{"bytes": picture(), "path": "a.png"}, {"bytes": None, "path": "a.png"}, None]
    column = pa.array(images, pa.struct([("bytes", kind), ("path", pa.string())]))
    write(tmp_path, {"prompt": ["x", "y", "z"], "image": column})
    run(tmp_path / "m.parquet", tmp_path / f"rows.{ending}")
    run(tmp_path / f"rows.{ending}", tmp_path / "back.parquet")
    assert [row["image"] for row in rows(tmp_path / "back.parquet")] == images


def test_from_text_to_text(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,seed,note\na,,x\nb,2,\n")
    run(tmp_path / "rows.csv", tmp_path / "rows.ndjson")
    assert (tmp_path / "rows.ndjson").read_text() == (
        '{"prompt": "a", "seed": null, "note": "x"}\n{"prompt": "b", "seed": 2, "note": null}\n'
    )
    run(tmp_path / "rows.ndjson", tmp_path / "rows.json")
    assert json.loads((tmp_path / "rows.json").read_text())[1] == {"prompt": "b", "seed": 2, "note": None}


def test_a_folder_becomes_one_table(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts", {"prompt": ["a"], "n": [1]}, "1.parquet")
    write(tmp_path / "parts", {"prompt": ["b"], "m": ["x"]}, "2.parquet")
    for ending in ("parquet", "jsonl"):
        run(tmp_path / "parts", tmp_path / f"all.{ending}", source_format="parquet")
    run(f"{tmp_path}/parts/*", tmp_path / "again.parquet")
    meant = [{"prompt": "a", "n": 1, "m": None}, {"prompt": "b", "n": None, "m": "x"}]
    assert rows(tmp_path / "all.parquet") == rows(tmp_path / "again.parquet") == meant
    assert [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()] == meant


def test_carried_columns_of_any_type_become_text(tmp_path: Path) -> None:
    columns = {
        "prompt": ["x"],
        "at": pa.array([1], pa.timestamp("ns", "UTC")),
        "late": pa.array([2**46], pa.timestamp("s")),
        "day": pa.array([0], pa.date32()),
        "price": pa.array([15], pa.decimal128(10, 2)),
        "raw": pa.array([b"\xff"], pa.binary()),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "nan": [float("nan")],
    }
    run(write(tmp_path, columns), tmp_path / "rows.jsonl")
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert row["at"] == "1970-01-01 00:00:00.000000001Z"
    assert row["late"]
    assert row | {"at": 0, "late": 0} == {
        "prompt": "x",
        "at": 0,
        "late": 0,
        "day": "1970-01-01",
        "price": "15.00",
        "raw": "/w==",
        "map": [["k", 1]],
        "nan": None,
    }
    run(tmp_path / "m.parquet", tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        assert next(csv.DictReader(file))["map"] == '[["k", 1]]'


@pytest.mark.parametrize(
    ("columns", "ending", "said"),
    [
        ({"x": [1.0, float("inf")]}, "json", "row 1, column x: got inf, expected a finite number"),
        ({"negative_prompt": ["a", ""]}, "csv", "row 1, column negative_prompt: got an empty text, expected a format"),
        ({"x": pa.array([b"\xff", b""]).view(pa.string())}, "csv", "row 0, column x: got a value that cannot be read"),
    ],
)
def test_what_a_format_cannot_hold_is_a_finding(tmp_path: Path, columns: Any, ending: str, said: str) -> None:
    source = write(tmp_path, {"prompt": ["a", "b"]} | columns)
    (finding,) = refused(source, tmp_path / f"rows.{ending}")
    assert finding.startswith(said)


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    text = '{"prompt": "a", "seed": "x"}\n{"prompt": 5}\n[]\n'
    text += '{"prompt": " ", "seed": -1}\n{"prompt": "b", "ratio": "2:1"}\n'
    (tmp_path / "rows.jsonl").write_text(text)
    said = refused(tmp_path / "rows.jsonl", tmp_path / "out" / "rows.parquet", findings=str(tmp_path / "f.parquet"))
    assert [each.partition(": got")[0] for each in said] == [
        "row 0, column seed",
        "row 1, column prompt",
        "row 2, got [], expected a JSON object",
        "row 3, column prompt",
        "row 3, column seed",
        "row 4, column ratio",
    ]
    written = rows(tmp_path / "f.parquet")
    assert sorted(row["row"] for row in written) == [0, 1, 2, 3, 3, 4]
    assert {"row", "column", "expected"} <= set(written[0])
    assert not (tmp_path / "out").exists()


def test_many_findings_are_counted(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,seed\n" + "x,y\n" * 30_000)
    with pytest.raises(ManifestError) as caught:
        run(tmp_path / "rows.csv", tmp_path / "rows.parquet")
    message = str(caught.value)
    assert "30000 problems" in message
    assert len(message.splitlines()) == 22
    assert "29980 more in column seed" in message


def test_without_checking_only_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,seed\nx,-1\n")
    assert run(tmp_path / "rows.csv", tmp_path / "rows.parquet", count_tokens=None) == 1
    (tmp_path / "rows.csv").write_text("text,seed\nx,y\n")
    assert len(refused(tmp_path / "rows.csv", tmp_path / "new.parquet", count_tokens=None)) == 1


def test_relative_images_are_looked_for_where_render_will(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.png").write_bytes(picture())
    (tmp_path / "rows.csv").write_text("prompt,image\nx,a.png\n")
    (said,) = refused(tmp_path / "rows.csv", tmp_path / "rows.parquet")
    assert said.startswith("row 0, column image: got 'a.png'")
    assert run(tmp_path / "rows.csv", tmp_path / "there" / "rows.parquet") == 1
    assert run(tmp_path / "there" / "rows.parquet", tmp_path / "again.csv") == 1


@pytest.mark.parametrize("target", ["rows.csv", "./rows.csv", "x/../rows.csv", "link.csv"])
def test_the_source_is_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.chdir(tmp_path)
    text = "prompt\nx\n"
    (tmp_path / "rows.csv").write_text(text)
    os.symlink("rows.csv", tmp_path / "link.csv")
    with pytest.raises(ConfigError, match="is the source itself"):
        run("rows.csv", target)
    assert (tmp_path / "rows.csv").read_text() == text


def test_a_target_among_the_sources_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"prompt": ["x"]}, "1.parquet")
    for source in (tmp_path, f"{tmp_path}/*.parquet"):
        with pytest.raises(ConfigError, match="would be a part of the source"):
            run(source, tmp_path / "all.parquet", source_format="parquet")
    with pytest.raises(ConfigError, match="is a folder"):
        run(tmp_path / "1.parquet", tmp_path, target_format="csv")


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("rows.txt", "rows.parquet", "rows.txt: its end says no format, expected one of .parquet, .csv"),
        ("rows.csv", "rows", "rows: its end says no format"),
        ("ftp://x/rows.csv", "rows.parquet", "storage ftp:// is not known"),
    ],
)
def test_names_that_say_nothing(source: str, target: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(source, target)
    assert said in str(caught.value)


def test_a_format_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text('{"prompt": "x"}\n')
    run(tmp_path / "rows.txt", tmp_path / "table", source_format="jsonl", target_format="parquet")
    assert rows(tmp_path / "table") == [{"prompt": "x"}]


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    for name in ("rows.csv", "rows.parquet"):
        (said,) = refused(tmp_path / name, tmp_path / "rows.jsonl")
        assert "got no such file" in said


def test_what_was_there_stays_where_the_target_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt\nx\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        run(tmp_path / "rows.csv", tmp_path / "file" / "rows.parquet")


@pytest.mark.s3
def test_both_sides_in_object_storage(tmp_path: Path, moto_s3: str) -> None:
    bucket = moto_s3
    store = open_store(f"{bucket}/in", STORAGE)
    store.put("pics/a.png", picture())
    store.put("rows.csv", b"prompt,image,seed\nx,pics/a.png,1\ny,,2\n")
    run(f"{bucket}/in/rows.csv", f"{bucket}/in/rows.parquet")
    run(f"{bucket}/in/rows.parquet", f"{bucket}/out/rows.jsonl")
    lines = open_store(f"{bucket}/out", STORAGE).get("rows.jsonl").decode().splitlines()
    assert json.loads(lines[0]) == {"prompt": "x", "image": "pics/a.png", "seed": 1}
    store.put("bad.csv", b"prompt\n \n")
    with pytest.raises(ManifestError):
        run(f"{bucket}/in/bad.csv", f"{bucket}/out/bad.parquet")
    assert open_store(f"{bucket}/out", STORAGE).head("bad.parquet") is None


KNOWN = st.fixed_dictionaries(
    {
        "prompt": st.text(min_size=1, max_size=50).map(lambda text: text.replace("\ud800", "") + "x"),
        "seed": st.none() | st.integers(0, 2**31 - 1),
        "audio": st.none() | st.booleans(),
        "guidance": st.none() | st.floats(0, 1e9),
        "duration": st.sampled_from([None, 3, 5]),
        "steps": st.none() | st.integers(1, 1000),
        "negative_prompt": st.none() | st.text(max_size=20),
        "priority": st.none() | st.integers(-100, 100),
    },
    optional={"note": st.text(max_size=5), "nested": st.dictionaries(st.text(max_size=3), st.integers() | st.text())},
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=st.lists(KNOWN, min_size=1, max_size=8))
def test_json_lines_and_back_keeps_every_known_value(tmp_path: Path, given: list[dict[str, Any]]) -> None:
    first, lines, back = tmp_path / "first.jsonl", tmp_path / "lines.jsonl", tmp_path / "back.parquet"
    first.write_text("".join(json.dumps(row) + "\n" for row in given))
    run(first, tmp_path / "table.parquet")
    run(tmp_path / "table.parquet", lines)
    run(lines, back)
    assert pq.read_table(back).equals(pq.read_table(tmp_path / "table.parquet"))
    known = [name for name in given[0] if name not in ("note", "nested")]
    assert [{name: row[name] for name in known} for row in rows(back)] == [
        {name: row[name] for name in known} for row in given
    ]


@pytest.mark.parametrize("name", ["happyhorse_prompts.jsonl", "vbench_prompts.jsonl"])
def test_real_prompts(tmp_path: Path, name: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not on this machine")
    number = len((DATA / name).read_text().splitlines())
    assert run(DATA / name, tmp_path / "rows.parquet") == number
    assert run(tmp_path / "rows.parquet", tmp_path / "rows.jsonl") == number
    given = [json.loads(line) for line in (DATA / name).read_text().splitlines()]
    back = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in back] == [row["prompt"] for row in given]
