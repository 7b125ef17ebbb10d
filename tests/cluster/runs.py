"""Small real runs for these tests, also as a process of its own: `python -m tests.cluster.runs FOLDER WEIGHTS`."""

import dataclasses
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.run import render_manifest
from pipeline.settings import ClusterSettings, LeaseSettings, ParallelSettings, RetrySettings, RunSettings
from pipeline.store import StorageSettings
from tests.clips import MEDIA
from tests.weights import noise_model

LONG = 150  # steps that take a few seconds on a small machine
SHORT = 2


def write_manifest(folder: Path, clip_ids: Sequence[str], *, steps: int = SHORT) -> Path:
    """Rows that depend on their clip_id alone, so that they are the same in any company."""
    path = folder / "manifest.parquet"
    rows = {
        "clip_id": list(clip_ids),
        "prompt": [f"a red ball moves {'left' if len(clip_id) % 2 else 'right'}" for clip_id in clip_ids],
        "steps": [steps] * len(clip_ids),
    }
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), path)
    return path


def run_settings(folder: Path, weights: Path, **changes: Any) -> RunSettings:
    """`folder`/manifest.parquet into `folder`/out, on two ranks."""
    settings = RunSettings(
        manifest=str(folder / "manifest.parquet"),
        output=str(folder / "out"),
        weights=str(weights),
        model=noise_model(),
        media=MEDIA,
        storage=StorageSettings(),
        parallel=ParallelSettings(tp=2, groups=1),
        cluster=ClusterSettings(object_store_bytes=150_000_000),
        retry=RetrySettings(),
        lease=LeaseSettings(),
    )
    return dataclasses.replace(settings, **changes)


def descendants(pid: int) -> dict[int, str]:
    """Process titles of all children, theirs, and so on."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue  # it has just ended
    found: dict[int, str] = {}
    ahead = [pid]
    while ahead:
        parent = ahead.pop()
        for child in (each for each, its_parent in parents.items() if its_parent == parent):
            found[child] = title(child)
            ahead.append(child)
    return found


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_records(folder: Path, count: int, *, timeout_s: float = 300) -> None:
    end = time.monotonic() + timeout_s
    where = folder / "out" / "records"
    while not where.is_dir() or len(list(where.glob("*.json"))) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"no {count} records within {timeout_s} s")
        time.sleep(0.05)


def kill_a_rank_in_the_second_clip(folder: Path, pid: int) -> None:
    """SIGKILL to one of two ranks a moment after the first record: the next clip is being denoised then."""
    wait_for_records(folder, 1)
    time.sleep(0.5)
    ranks = sorted(each for each, name in descendants(pid).items() if name.startswith("ray::RankWorker"))
    os.kill(ranks[-1], signal.SIGKILL)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(render_manifest(run_settings(Path(sys.argv[1]), Path(sys.argv[2]))).exit_code)
