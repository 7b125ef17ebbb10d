"""All findings at once: the first in full, the rest by kind, and every one in a file on request."""

import pickle
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import Finding, ManifestError
from pipeline.manifest.findings import Findings, write_findings
from pipeline.store import open_store
from tests.manifests import STORAGE, read, write


def test_a_row_keeps_the_order_of_its_checks() -> None:
    found = Findings()
    for row, column in ((2, "b"), (0, "z"), (2, "a"), (-1, "c")):
        found.add(row, column, "x", "y")
    assert [(each.row, each.column) for each in found.in_order()] == [(-1, "c"), (0, "z"), (2, "b"), (2, "a")]


def test_what_is_not_shown_is_counted_by_column_and_expectation(tmp_path: Path) -> None:
    columns = {"prompt": ["a"] * 60, "clip_id": ["x"] * 60, "seed": [-1, 2**31] * 30, "guidance": [-1.0] * 60}
    with pytest.raises(ManifestError) as caught:
        read(write(tmp_path, columns))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("m.parquet: 179 problems, nothing was started")
    assert len(lines) == 1 + ManifestError.SHOWN + 3
    assert sorted(lines[-3:]) == [
        "  and 53 more in column clip_id, expected one that no other row has",
        "  and 53 more in column guidance, expected a finite number of 0 or more",
        "  and 53 more in column seed, expected an integer from 0 to 2147483647",
    ]


def test_very_many_are_counted_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Findings, "KEPT", 100)
    monkeypatch.setattr("pipeline.manifest.tables.BATCH_ROWS", 64)
    target = tmp_path / "found" / "findings.parquet"
    with pytest.raises(ManifestError) as caught:
        read(write(tmp_path, {"prompt": [""] * 1000, "audio": ["no"] * 1000}), findings=str(target))
    assert len(caught.value.findings) == 100
    lines = str(caught.value).splitlines()
    assert "1001 problems" in lines[0]
    assert lines[1] == "  column audio: got a column of string, expected a column of booleans"
    assert lines[-1] == "  and 981 more in column prompt, expected some text"
    table = pq.read_table(target)
    assert table.column_names == ["row", "column", "got", "expected"]
    assert table.num_rows == 1001, "the file has all of them"
    assert table.slice(1000).to_pylist() == [{"row": 999, "column": "prompt", "got": "''", "expected": "some text"}]


def test_the_file_says_also_that_nothing_is_wrong(tmp_path: Path) -> None:
    write_findings([Finding(0, "prompt", "''", "some text")], str(tmp_path / "f.parquet"), storage=STORAGE)
    assert pq.read_table(tmp_path / "f.parquet").num_rows == 1
    read(write(tmp_path, {"prompt": ["a"]}), findings=str(tmp_path / "f.parquet"))
    assert pq.read_table(tmp_path / "f.parquet").num_rows == 0


def test_the_file_in_a_bucket(tmp_path: Path, moto_s3: str) -> None:
    with pytest.raises(ManifestError):
        read(write(tmp_path, {"prompt": [""]}), findings=f"{moto_s3}/a/f.parquet")
    assert open_store(f"{moto_s3}/a").head("f.parquet")


def test_an_error_survives_the_way_between_processes() -> None:
    error = ManifestError("m", [Finding(0, "seed", "-1", "more")], more={("seed", "more"): 3})
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.findings, again.more) == (str(error), error.findings, error.more)
