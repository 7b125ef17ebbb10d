"""Runs of the real command line for the tests beside this file, and quick looks at what they left."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
QUICK = ("model.sampling.steps=2",)
TIMEOUT_S = 480
COREUTILS = (
    "cat chmod cp cut date dirname env expr head id ln ls mkdir mktemp mv readlink rm sort tail touch tr uname wc"
)


@dataclass(frozen=True)
class Caller:
    """A person on a machine where nothing is installed but this package and coreutils."""

    path: str
    folder: Path = ROOT  # where it stands

    @property
    def environment(self) -> dict[str, str]:
        # RAY_AUTH_MODE and the like are the program's own business, not the caller's.
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTEST_"))}
        return kept | {"PATH": self.path}

    def run(self, *words: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / "happyhorse", *words],
            env=self.environment | dict(variables or {}),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def render(self, manifest: Path | str, output: Path | str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("render", f"manifest={manifest}", f"output={output}", *QUICK, *words)

    @contextmanager
    def rendering(self, manifest: Path, output: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A render in progress. Whoever starts it ends it."""
        command = [str(BIN / "happyhorse"), "render", f"manifest={manifest}", f"output={output}", *QUICK, *words]
        with subprocess.Popen(
            command, env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def bare_path(folder: Path) -> str:
    """A PATH of `.venv/bin` and coreutils: no ffmpeg, ffprobe, node or shell of the machine's own."""
    folder.mkdir()
    for name in COREUTILS.split():
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return f"{BIN}:{folder}"


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> Path:
    names = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
    return path


def records(output: Path) -> dict[str, dict[str, Any]]:
    """File name -> record."""
    return {path.name: json.loads(path.read_text()) for path in sorted((output / "records").glob("*.json"))}


def digests(output: Path) -> dict[str, dict[str, str]]:
    """clip_id -> kind -> SHA-256, as recorded."""
    found = records(output).values()
    return {each["clip_id"]: {kind: file["sha256"] for kind, file in each["files"].items()} for each in found}


def said(done: subprocess.CompletedProcess[str]) -> str:
    return f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
