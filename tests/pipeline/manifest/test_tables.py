"""Files become one table: which of a folder are read, how they are joined, and what is said of those that are none."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.manifests import findings, read, table_of, write


def test_a_name_that_is_no_utf8_is_found_at_any_depth(tmp_path: Path) -> None:
    for bad in (
        pa.field(b"\xff", pa.int8()),
        pa.field("deep", pa.list_(pa.struct([pa.field(b"\xff", pa.int8())]))),
    ):
        schema = pa.schema([pa.field("prompt", pa.string()), bad])
        table = pa.Table.from_arrays([pa.array(["a"]), pa.nulls(1, bad.type)], schema=schema)
        (line,) = findings(write(tmp_path, table))
        assert line.startswith("got the name of a column that is not UTF-8")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.parquet", None, "got no such file, and no folder with *.parquet files"),
        ("words.parquet", b"prompt\na red ball\n", "got 18 bytes that are not Parquet"),
        ("empty.parquet", b"", "got 0 bytes that are not Parquet"),
        ("cut.parquet", "cut", "bytes that are not Parquet"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: Any, message: str) -> None:
    if content == "cut":
        content = write(tmp_path, {"prompt": ["a"] * 100}, "whole").read_bytes()[:-20]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (line,) = findings(tmp_path / name)
    assert message in line


def test_a_folder_is_its_files_in_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    write(folder, {"prompt": ["c"], "note": [1]}, "b.parquet")
    write(folder, {"prompt": ["a", "b"]}, "a.parquet")
    write(folder / "more", {"prompt": ["d"]}, "a.parquet")
    write(folder, {"prompt": [""]}, "_metadata.parquet")
    write(folder, {"prompt": [""]}, ".hidden.parquet")
    (folder / "README.md").write_text("no table")
    manifest = read(folder)
    assert [(clip.prompt, clip.row) for clip in manifest.clips] == [("a", 0), ("b", 1), ("c", 2), ("d", 3)]
    assert table_of(manifest)["note"].to_pylist() == [None, None, 1, None]
    assert [clip.prompt for clip in read(f"{folder}/").clips] == ["a", "b", "c", "d"]
    assert [clip.prompt for clip in read(f"{folder}/[b-z]*.parquet").clips] == ["c"]


def test_a_folder_leaves_out_what_a_run_left_in_it(tmp_path: Path) -> None:
    """The output may be the manifest's folder or lie below it: the second run reads the same rows."""
    write(tmp_path, {"prompt": ["a"]}, "m.parquet")
    ours = pa.table({"prompt": ["a"]}).replace_schema_metadata({"happyhorse.prefix": "render_"})
    (tmp_path / "out").mkdir()
    for folder in (tmp_path, tmp_path / "out"):
        write(folder, ours, "results.parquet")
    for address in (tmp_path, f"{tmp_path}/*.parquet"):
        manifest = read(address)
        assert len(manifest.clips) == 1
        assert manifest.files == (f"{tmp_path}/m.parquet",)
    assert len(read(tmp_path / "results.parquet").clips) == 1, "asked for by its name"
    (line,) = findings(tmp_path / "out")
    assert line.startswith(f"got nothing but what a run left ({tmp_path}/out/results.parquet)")


def test_a_folder_keeps_what_only_looks_like_results(tmp_path: Path) -> None:
    write(tmp_path, {"prompt": ["a"]}, "results.parquet")
    derived = pa.table({"prompt": ["b"]}).replace_schema_metadata({"happyhorse.prefix": "render_"})
    write(tmp_path, derived, "next.parquet")
    assert sorted(clip.prompt for clip in read(tmp_path).clips) == ["a", "b"]


def test_a_column_without_gaps_may_be_missing_from_another_file(tmp_path: Path) -> None:
    """Such as those of results under another name. Arrow would join them into a table that it cannot write."""
    deep = pa.struct([pa.field("x", pa.int8(), nullable=False)])
    fields = [("prompt", pa.string()), pa.field("n", pa.int8(), nullable=False), pa.field("deep", deep, nullable=False)]
    full = pa.Table.from_pylist([{"prompt": "a", "n": 1, "deep": {"x": 1}}], pa.schema(fields))
    for first, second in ((full, pa.table({"prompt": ["b"]})), (pa.table({"prompt": ["b"]}), full)):
        write(tmp_path, first, "1.parquet")
        write(tmp_path, second, "2.parquet")
        table = table_of(read(tmp_path))
        again = pq.read_table(write(tmp_path, table, "_again.parquet"))
        assert dict(zip(again["prompt"].to_pylist(), again["deep"].to_pylist(), strict=True)) == {
            "a": {"x": 1},
            "b": None,
        }
        assert again.equals(table)


def test_files_of_a_folder_that_disagree_about_a_type(tmp_path: Path) -> None:
    write(tmp_path, {"prompt": ["a"], "note": [1]}, "a.parquet")
    write(tmp_path, {"prompt": ["b"], "note": ["x"]}, "b.parquet")
    (line,) = findings(tmp_path)
    assert "files whose columns differ in type" in line
