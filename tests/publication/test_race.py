"""Eight runs started at once on one output: one works at a time, the others leave with 4 or go on after it.

`make race` runs 20 rounds on each storage; RACE_ROUNDS says how many.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from pipeline.errors import LeaseHeld
from pipeline.lease.holder import Machine
from pipeline.settings import LeaseSettings
from pipeline.store import open_store
from tests.manifests import write
from tests.publication import child
from tests.publication.child import Job
from tests.publication.runs import TIMEOUT_S, assert_whole, records, start

NUM_RUNS, NUM_CLIPS, CLIP_S = 8, 4, 0.5
ROUNDS = int(os.environ.get("RACE_ROUNDS", "2"))
HELD = 4
LEASE = LeaseSettings(lease_s=3, settle_s=1)


def work_or_leave(job: Job, said: Connection) -> None:
    """As `render` does where another run lives. Leases are waited for in earnest."""
    try:
        child.work(job, said, lease=LEASE, machine=Machine())
    except LeaseHeld as error:
        said.send(str(error))
        sys.exit(HELD)


@pytest.fixture(params=["disk", pytest.param("swift", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "disk" else request.getfixturevalue("swift_s3")


@pytest.mark.slow
def test_of_eight_runs_one_works_at_a_time(place: str, job_at: Callable[[str], Job], tmp_path: Path) -> None:
    ids = [f"clip-{n}" for n in range(NUM_CLIPS)]
    manifest = write(tmp_path, {"clip_id": ids, "prompt": ["a red ball"] * NUM_CLIPS})
    for number in range(ROUNDS):
        job = replace(job_at(f"{place}/{number}"), manifest=manifest, clip_s=CLIP_S)
        runs = [start(job, does=work_or_leave) for _ in range(NUM_RUNS)]
        for process, _ in runs:
            process.join(TIMEOUT_S)
        codes = [process.exitcode for process, _ in runs]
        assert set(codes) <= {0, HELD}, codes
        assert 0 in codes
        assert_whole(job)
        store = open_store(job.output)
        assert len(records(store)) == NUM_CLIPS
        mp4s = [each.key for each in store.list("clips") if each.key.endswith(".mp4")]
        assert len(mp4s) == NUM_CLIPS, "nothing was made twice"
