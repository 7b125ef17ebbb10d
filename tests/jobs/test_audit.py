"""`happyhorse audit` as a person meets it: what is printed, and the exit code."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from pipeline.store import Store, open_store
from tests.manifests import write
from tests.outputs import ROWS, finish_output, key_of, make_media
from tests.small_disk import mounted


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    folder = tmp_path_factory.mktemp("finished")
    store = open_store(str(folder / "out"))
    return store, finish_output(store, make_media(folder), folder)


@pytest.fixture
def output(finished: tuple[Store, Path]) -> Store:
    """Every test leaves it as it was."""
    store, _ = finished
    return store


def audited(output: Store, *words: str) -> int:
    return main(["audit", f"output={output.uri}", *words])


def answer(output: Store, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    audited(output, "format=json", *words)
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    return values


def test_all_well(output: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert audited(output) == 0
    out = capsys.readouterr().out
    assert "4 SUCCEEDED" in out
    assert "every record is one of its own, and every file is as recorded" in out
    values = answer(output, capsys)
    assert values["rows"] == {"SUCCEEDED": 4, "FAILED": 0, "PENDING": 0, "INVALID": 0}
    assert (values["records"], values["superseded"], values["files"]["count"]) == (4, 0, 11)
    assert (values["num_findings"], values["findings"], values["rows_not_checked"]) == (0, [], None)
    assert values["run"]["run_id"] == "run"


def test_a_finding_is_named_and_answered_with_1(output: Store, capsys: pytest.CaptureFixture[str]) -> None:
    content = output.get("clips/b.00000001.wav")
    output.put("clips/b.00000001.wav", content[:-1] + b"!")
    try:
        assert audited(output) == 1
        assert f"{key_of(output, 'b')}: clips/b.00000001.wav: got sha256 " in capsys.readouterr().out
        values = answer(output, capsys)
    finally:
        output.put("clips/b.00000001.wav", content)
    assert (values["num_findings"], values["findings"][0]["file"]) == (1, "clips/b.00000001.wav")


def change_run(output: Store, **changes: Any) -> bytes:
    before = output.get("run.json")
    output.put("run.json", json.dumps(json.loads(before) | changes).encode())
    return before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": {}}, r"run.json does not say with which settings rows were rendered ('manifest')"),
        ({"settings": None}, r"run.json does not say with which settings rows were rendered"),
        ({"model_hash": 5}, r"run.json.model_hash: got 5, expected text"),
    ],
)
def test_rows_that_cannot_be_named_any_more_are_said(
    output: Store, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    before = change_run(output, **changes)
    try:
        assert audited(output) == 2
        out = capsys.readouterr().out
        values = answer(output, capsys)
    finally:
        output.put("run.json", before)
    assert "rows were not checked, only records and files: " in out
    assert said in out
    assert said in values["rows_not_checked"]
    assert (values["rows"], values["records"]) == (None, 4)


@pytest.mark.parametrize("content", [None, b"", b"[]", b"\xff"])
def test_without_a_run_records_and_files_are_checked(
    output: Store, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    before = output.get("run.json")
    output.delete("run.json")
    if content is not None:
        output.put("run.json", content)
    try:
        assert audited(output) == 2
        assert "run.json is not there" in capsys.readouterr().out
    finally:
        output.put("run.json", before)


def test_another_manifest(finished: tuple[Store, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever asks for one that cannot be read is not told that all is well."""
    output, manifest = finished
    assert audited(output, f"manifest={tmp_path}/typo.parquet") == 2
    assert "typo.parquet" in capsys.readouterr().err
    values = answer(output, capsys, f"manifest={manifest}")
    assert values["rows"]["SUCCEEDED"] == 4


def test_a_manifest_that_has_moved(finished: tuple[Store, Path], capsys: pytest.CaptureFixture[str]) -> None:
    output, manifest = finished
    moved = manifest.rename(manifest.with_name("moved.parquet"))
    try:
        assert audited(output) == 2
        assert "rows were not checked" in capsys.readouterr().out
        assert answer(output, capsys, f"manifest={moved}")["rows"]["SUCCEEDED"] == 4
    finally:
        moved.rename(manifest)


def test_rows_of_which_no_clip_can_be_made_are_explained(
    finished: tuple[Store, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, _ = finished
    wrong = write(tmp_path, ROWS | {"prompt": ["", *ROWS["prompt"][1:]]}, name="two words.parquet")
    assert audited(output, f"manifest={wrong}") == 0
    out = capsys.readouterr().out
    assert "1 INVALID" in out
    (line,) = (line for line in out.splitlines() if line.startswith("  INVALID "))
    words = shlex.split(line.split("`")[1])
    assert words == ["happyhorse", "plan", f"manifest={wrong}", "model=small"]
    assert main([words[1], words[2], "model=foal"]) == 2  # the name of a model that conf/ has
    assert "row 0, column prompt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["output=nowhere"], "nowhere holds neither run.json nor records: there is nothing to audit"),
        (["output=x", "format=xml"], 'format: got "xml", expected one of table, json'),
        ([], "audit needs output=..."),
    ],
)
def test_what_cannot_be_audited(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_full_disk_here_is_no_finding_there(
    output: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", size="4k") as disk:
        monkeypatch.setattr("tempfile.tempdir", str(disk.path))
        assert audited(output) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"cannot write temporary files to {disk.path}: no space left (" in err
    assert err.count("\n") == 1
