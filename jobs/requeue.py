"""`happyhorse requeue output=Y [reason=TEXT] [clip=ID,ID] [dry_run=true]`: the next run tries clips that failed again.

Without it they are tried again too, unless that run is told not to (retry.failed=false, as every night).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jobs.typed import build
from pipeline.counting import counted
from pipeline.errors import ConfigError
from pipeline.requeue import given_up, requeue, unknown_clips
from pipeline.status import read_status
from pipeline.store import StorageSettings, Store, open_store

SHOWN = 5  # ids that nothing has


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
    clip_ids = settings.clip.split(",") if settings.clip is not None else None  # no id holds a comma
    _check_ids(store, clip_ids or ())
    if settings.state == "CANCELED":
        print(f"{store.uri}: canceled clips need no requeue, the same render command renders them")
        return 0
    verb = "would requeue" if settings.dry_run else "requeueing"
    count = 0
    for clip in given_up(store, reason=settings.reason, clip_ids=clip_ids):
        count += 1
        print(f"{verb} {clip}", flush=True)
        if not settings.dry_run:
            requeue(store, clip)
    done = "would be requeued" if settings.dry_run else "requeued"
    print(f"{store.uri}: {counted(count, 'clip')} {done}")
    if count and not settings.dry_run:
        after = f"run {found.run_id} is at work; the next one" if found.is_live else "the next run"
        print(f"{after} tries {'it' if count == 1 else 'them'} again")
    return 0


def _check_ids(store: Store, clip_ids: Sequence[str]) -> None:
    """One that is wrong, and nothing is requeued."""
    unknown = unknown_clips(store, clip_ids) if clip_ids else []
    if unknown:
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise ConfigError(
            f"clip: {store.uri} has no {', '.join(unknown[:SHOWN])}{more}, expected clip_ids of rows, records or "
            "failures there (results.parquet has them all); nothing was requeued"
        )
