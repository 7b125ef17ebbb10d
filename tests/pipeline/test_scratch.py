"""Temporary folders of processes that are gone are removed, all others stay."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.scratch import scratch_folder, sweep

GONE = (
    "import os; from pipeline.scratch import scratch_folder\n"
    "folder = scratch_folder(); print(folder.name, flush=True); os._exit(9)"
)


def of_a_dead_process(root: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", GONE],
        env=os.environ | {"TMPDIR": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    return Path(done.stdout.strip())


def test_what_a_killed_process_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = of_a_dead_process(tmp_path)
    (left / "clip.mp4").write_bytes(b"half")
    others = [tmp_path / "happyhorse-notes", tmp_path / f"happyhorse-1-{left.name.split('-')[2]}-x", tmp_path / "else"]
    for each in others:  # somebody's folder, one of another namespace of pids, and one of another program
        each.mkdir()
    with scratch_folder() as mine:
        assert sweep() == [left]
        assert Path(mine).is_dir()
    assert not left.exists()
    assert all(each.is_dir() for each in others)


def test_a_pid_that_is_used_again_is_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as mine:
        os.utime(mine, (1e9, 1e9))  # last changed long before this process began
        assert sweep() == [Path(mine)]
        Path(mine).mkdir()
        os.utime(mine, (time.time(), time.time()))
        assert sweep() == []


def test_without_proc_nothing_is_removed(tmp_path: Path) -> None:
    left = of_a_dead_process(tmp_path)
    assert sweep(tmp_path, proc=tmp_path / "none") == []
    assert left.is_dir()
