"""`happyhorse clean` as a person meets it."""

from pathlib import Path

import pytest

from jobs.cli import main
from pipeline.store import Store, open_store
from tests.manifests import write
from tests.outputs import ROWS, finish_output, make_media

ORPHAN = "clips/a.99999999.mp4"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    folder = tmp_path_factory.mktemp("finished")
    store = open_store(str(folder / "out"))
    return store, finish_output(store, make_media(folder), folder)


def test_a_dry_run_says_and_the_real_one_does(finished: tuple[Store, Path], capsys: pytest.CaptureFixture[str]) -> None:
    store, _ = finished
    store.put(ORPHAN, b"12345")
    assert main(["clean", f"output={store.uri}", "dry_run=true"]) == 0
    out = capsys.readouterr().out
    assert f"would remove {ORPHAN} (5 bytes): no record names it" in out
    assert "1 file of 0.0 MB would be removed" in out
    assert store.head(ORPHAN) == 5
    assert main(["clean", f"output={store.uri}"]) == 0
    assert f"removing {ORPHAN} (5 bytes)" in capsys.readouterr().out
    assert store.head(ORPHAN) is None


def test_superseded_records_are_asked_for(finished: tuple[Store, Path], capsys: pytest.CaptureFixture[str]) -> None:
    store, manifest = finished
    assert main(["clean", f"output={store.uri}", "superseded=true", f"manifest={manifest}"]) == 0
    assert "0 files of 0.0 MB and 0 records removed" in capsys.readouterr().out
    assert len(list(store.list("records"))) == len(ROWS["clip_id"])


def test_what_nothing_has_replaced_stays_and_is_said(
    finished: tuple[Store, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table holds clip a alone, and with another seed; no run has been since."""
    store, _ = finished
    other = write(tmp_path, {name: [*values[:1]] for name, values in ROWS.items()} | {"seed": [99]})
    results = store.get("results.parquet")  # names what the last run made, which stays anyway
    store.delete("results.parquet")
    try:
        for word, said in (("true", "replaces them: 4 superseded records with"), ("all", "11 files of")):
            assert (
                main(["clean", f"output={store.uri}", f"superseded={word}", f"manifest={other}", "dry_run=true"]) == 0
            )
            out = capsys.readouterr().out
            assert said in out
            assert ("would remove" in out) == (word == "all")
    finally:
        store.put("results.parquet", results)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["output=x", "superseded=yes"], 'superseded: got "yes", expected one of true, false, all'),
        (["output=nowhere"], "run.json is not there: no run has left anything to remove"),
        (["output=nowhere", "superseded=true"], "run.json is not there: it is not known with which settings"),
        (["output=x", "manifest=y"], "manifest= says which records are superseded: it goes with superseded=true"),
        ([], "clean needs output=..."),
    ],
)
def test_a_mistake_removes_nothing(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_manifest_that_cannot_be_read_supersedes_nothing(
    finished: tuple[Store, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store, _ = finished
    assert main(["clean", f"output={store.uri}", "superseded=true", "manifest=typo.parquet"]) == 2
    assert "typo.parquet" in capsys.readouterr().err
    assert len(list(store.list("records"))) == len(ROWS["clip_id"])
