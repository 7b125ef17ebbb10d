"""Moments of runs, for tests that are about something else."""

from typing import Any

from pipeline.summary import Snapshot


def make_snapshot(**changes: Any) -> Snapshot:
    """Two clips, of which nothing is done."""
    values: dict[str, Any] = {
        "num_clips": 2,
        "num_succeeded": 0,
        "num_failed": 0,
        "in_flight": (),
        "cost": 100,
        "cost_done": 0.0,
        "working_s": 0.0,
        "elapsed_s": 0.0,
        "groups": (),
    }
    return Snapshot(**(values | changes))
