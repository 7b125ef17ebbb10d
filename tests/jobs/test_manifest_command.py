"""`happyhorse manifest SOURCE TARGET` as a person meets it."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main

BODY = {
    "model": "happyhorse-1.0-t2v",
    "input": {"prompt": "a red square moves to the left"},
    "parameters": {"ratio": "16:9", "duration": 4, "seed": 7, "watermark": False},
}


def test_requests_become_a_manifest_for_the_foal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "requests.jsonl", tmp_path / "m.parquet"
    source.write_text(json.dumps(BODY) + "\n")
    assert main(["manifest", str(source), str(target)]) == 0
    assert capsys.readouterr().out == f"{target}: 1 row, checked for model foal\n"
    (row,) = pq.read_table(target).to_pylist()
    assert (row["prompt"], row["ratio"], row["duration"], row["seed"]) == (BODY["input"]["prompt"], "16:9", 4, 7)  # type: ignore[index]


def test_another_models_sizes_need_no_weights_where_nothing_is_counted(tmp_path: Path) -> None:
    source, target = tmp_path / "requests.json", tmp_path / "m.parquet"
    body = BODY | {"parameters": {"size": "1920*1080"}}
    source.write_text(json.dumps([body]))
    words = ["manifest", str(source), str(target), "model=magihuman_1080p", "weights=none"]
    assert main(words) == 0
    (row,) = pq.read_table(target).to_pylist()
    assert (row["resolution"], row["ratio"]) == ("1080P", "16:9")


def test_findings_are_told_kept_and_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target, kept = tmp_path / "rows.csv", tmp_path / "m.parquet", tmp_path / "f.parquet"
    source.write_text("prompt,seed,ratio\nx,seven,1:1\ny,8,2:1\n")
    assert main(["manifest", str(source), str(target), f"findings={kept}"]) == 2
    error = capsys.readouterr().err
    assert "row 0, column seed: got 'seven', expected an integer\n" in error
    assert "row 1, column ratio: got '2:1', expected one of 1:1, 16:9, 9:16" in error
    assert not target.exists()
    assert pq.read_table(kept)["row"].to_pylist() == [0, 1]
    source.write_text("prompt,seed,ratio\nx,7,1:1\n")
    assert main(["manifest", str(source), str(target), f"findings={kept}"]) == 0
    assert pq.read_table(kept).num_rows == 0


def test_unchecked_rows_are_converted_all_the_same(tmp_path: Path) -> None:
    source, target = tmp_path / "rows.csv", tmp_path / "m.parquet"
    source.write_text("prompt,ratio\nx,2:1\n")
    assert main(["manifest", str(source), str(target), "check=false"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "manifest needs SOURCE and TARGET"),
        (["a.csv"], "manifest needs TARGET"),
        (["a.csv", "b.parquet", "c"], "'c' is one word too many, expected SOURCE TARGET"),
        (["a.csv", "b.parquet", "chek=false"], "unknown key chek; the nearest known one is check"),
        (["a.csv", "b.parquet", "source_format=xml"], "expected one of parquet, csv, jsonl, json or null"),
        (["a.csv", "a.csv"], "a.csv is the source itself"),
        (["a.csv", "b.parquet"], "got no such file"),
        (["a.txt", "b.parquet"], "its end says no format"),
    ],
)
def test_a_mistake_is_one_clear_message(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["manifest", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_help_shows_the_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: happyhorse manifest SOURCE TARGET [key=value ...]\n")
    assert "\n  SOURCE  " in shown
    assert "source=" not in shown


def test_findings_do_not_replace_what_they_are_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "good.parquet"
    pq.write_table(pa.table({"prompt": ["A red ball."]}), table)
    before = table.read_bytes()
    assert main(["plan", f"manifest={table}", f"findings={table}"]) == 2
    assert "would replace the manifest" in capsys.readouterr().err
    assert main(["manifest", str(table), str(tmp_path / "t.csv"), f"findings={tmp_path / 't.csv'}"]) == 2
    assert "is the source or the target" in capsys.readouterr().err
    assert table.read_bytes() == before
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize("name", ["pipe.parquet", "pipe.csv"])
def test_a_pipe_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    os.mkfifo(tmp_path / name)
    words = ["plan", f"manifest={tmp_path / name}"] if name.endswith("parquet") else ["manifest", str(tmp_path / name)]
    assert main([*words, *([] if words[0] == "plan" else [str(tmp_path / "t.parquet")])]) == 2
    assert "neither a file nor a folder" in capsys.readouterr().err


def test_versions_keep_their_zeros(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,version,price\nA red ball.,1.10,0.5\nA blue ball.,1.9,2.25\n")
    assert main(["manifest", str(tmp_path / "a.csv"), str(tmp_path / "a.parquet")]) == 0
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column("version").to_pylist() == ["1.10", "1.9"]
    assert table.column("price").to_pylist() == [0.5, 2.25]
