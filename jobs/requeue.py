"""`happyhorse requeue output=Y [reason=TEXT] [clip=ID] [dry_run=true]`: the next run tries clips that failed again.

Without it they are tried again too, unless that run is told not to (retry.failed=false, as every night).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jobs.typed import build
from pipeline.requeue import given_up, requeue
from pipeline.status import read_status
from pipeline.store import StorageSettings, open_store


@dataclass(frozen=True, kw_only=True)
class RequeueSettings:
    output: str
    storage: StorageSettings
    state: Literal["FAILED", "CANCELED"]
    reason: str | None
    clip: str | None
    dry_run: bool


def requeue_clips(values: Mapping[str, Any]) -> int:
    settings = build(RequeueSettings, {key: value for key, value in values.items() if key != "job"}, at="")
    store = open_store(settings.output, settings.storage)
    found = read_status(store)
    if settings.state == "CANCELED":
        print(f"{store.uri}: canceled clips need no requeue, the same render command renders them")
        return 0
    verb = "would requeue" if settings.dry_run else "requeueing"
    count = 0
    for clip in given_up(store, reason=settings.reason, clip_id=settings.clip):
        count += 1
        print(f"{verb} {clip}", flush=True)
        if not settings.dry_run:
            requeue(store, clip)
    done = "would be requeued" if settings.dry_run else "requeued"
    print(f"{store.uri}: {count} clips {done}")
    if count and not settings.dry_run:
        after = f"run {found.run_id} is at work; the next one" if found.is_live else "the next run"
        print(f"{after} tries them again")
    return 0
