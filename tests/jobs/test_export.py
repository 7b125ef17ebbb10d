"""`happyhorse export` as a person meets it: what it prints, and its exit codes."""

from pathlib import Path

import pytest

from jobs.cli import main
from pipeline.store import open_store
from tests.pipeline.export.outputs import rendered


@pytest.fixture
def output(tmp_path: Path) -> Path:
    rendered(open_store(str(tmp_path / "out")), tmp_path, {"prompt": ["one", "two"], "clip_id": ["a", "b"]})
    return tmp_path / "out"


def test_files_get_plain_names_and_the_last_lines_say_where(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", f"output={output}", f"to={tmp_path}/films", "kinds=[mp4]"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 clips: 2 files linked",
        f"{tmp_path}/films: index.csv and index.parquet say which file is whose",
    ]
    assert sorted(path.name for path in (tmp_path / "films").iterdir()) == [
        "a.mp4",
        "b.mp4",
        "index.csv",
        "index.parquet",
    ]
    assert main([*words, "name={clip_id}.{kind}"]) == 0
    assert capsys.readouterr().out.startswith("2 clips: 2 there before\n")


def test_what_could_not_be_exported_is_said_and_is_1(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (output / "clips" / "a.0a1b2c3d.wav").unlink()
    assert main(["export", f"output={output}", f"to={tmp_path}/films"]) == 1
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("clip a: clips/a.0a1b2c3d.wav: got no such file, expected ")
    assert second == "2 clips: 5 files linked, 1 left out, see above"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("name=same.{kind}", "same.mp4 is the name of clip a (mp4) and of clip b (mp4)"),
        ("kinds=[mp3]", 'kinds[0]: got "mp3", expected one of mp4, wav, jpg'),
        ("how=move", 'how: got "move", expected one of auto, link, copy'),
    ],
)
def test_a_mistake_is_2_and_nothing_is_written(
    output: Path, tmp_path: Path, word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", f"output={output}", f"to={tmp_path}/films", word]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "films").exists()
