"""What the end-to-end tests share: a bare machine to call from, and one finished render of six clips."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.runs import ROOT, Caller, bare_path, said, write_manifest
from tests.sounds import beeps, sound_file

BEEPS = beeps(4.5, [0.5, 1.5, 2.5])  # longer than any of the clips
ROWS: list[dict[str, Any]] = [
    {
        "clip_id": "one",
        "prompt": "A red circle stays still on a white background, with a low hum.",
        "duration": 3,
        "seed": 1,
    },
    {
        "clip_id": "two",
        "prompt": "A blue square stays still on a black background, with a high tone.",
        "duration": 3,
        "seed": 2,
    },
    {"clip_id": "three", "prompt": "A pink triangle moves from left to right.", "duration": 3, "seed": 3},
    {
        "clip_id": "four",
        "prompt": "A green circle bounces up and down.",
        "duration": 3,
        "seed": 4,
        "audio_in": "beeps.flac",
    },
    {"clip_id": "five", "prompt": "A cyan circle bounces up and down.", "duration": 3, "seed": 5, "audio": False},
    {"clip_id": "six", "prompt": "An orange square stays still.", "duration": 3, "seed": 6, "ratio": "9:16"},
]


@dataclass(frozen=True)
class Finished:
    """An output that every test may read and none may change."""

    manifest: Path
    output: Path
    rows: list[dict[str, Any]]
    printed: str


@pytest.fixture(scope="session")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Caller:
    return Caller(bare_path(tmp_path_factory.mktemp("machine") / "coreutils"))


@pytest.fixture(scope="session")
def finished(caller: Caller, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "beeps.flac").write_bytes(sound_file("flac", BEEPS, rate_hz=24_000))
    manifest = write_manifest(folder / "manifest.parquet", ROWS)
    done = caller.render(os.path.relpath(manifest, ROOT), os.path.relpath(folder / "output", ROOT))
    assert done.returncode == 0, said(done)
    return Finished(manifest=manifest, output=folder / "output", rows=ROWS, printed=done.stdout)
