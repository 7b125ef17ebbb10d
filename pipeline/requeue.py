"""Gives clips that failed another chance: what says that they gave up is removed, the next run tries them again."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain

from pipeline.errors import StoreError
from pipeline.ledger import NUM_READERS, Ledger
from pipeline.manifest.tables import RESULTS
from pipeline.results import result_ids
from pipeline.side_by_side import side_by_side
from pipeline.store import Store


@dataclass(frozen=True, kw_only=True)
class GivenUp:
    """A clip that a run gave up, and why."""

    key: str
    clip_id: str
    reason: str  # `<stage>: <message>` of its last failure, as in results.parquet

    def __str__(self) -> str:
        return f"{self.clip_id}: {self.reason}"


def given_up(store: Store, *, reason: str | None = None, clip_ids: Collection[str] | None = None) -> Iterator[GivenUp]:
    """Those that fit: `reason` is a part of theirs. One that cannot be read fits no reason."""
    keys = (key for key in Ledger(store).failure_keys() if clip_ids is None or clip_of(key) in clip_ids)
    for found in side_by_side(lambda key: _read(store, key), keys, threads=NUM_READERS):
        if reason is None or reason in found.reason:
            yield found


def unknown_clips(store: Store, clip_ids: Collection[str]) -> list[str]:
    """Ids that no failure, no record and no row of the results has."""
    ledger = Ledger(store)
    wanted = dict.fromkeys(clip_ids)
    known = {clip_of(key) for key in chain(ledger.failure_keys(), ledger.record_keys()) if clip_of(key) in wanted}
    if len(known) < len(wanted) and store.head(RESULTS) is not None:
        known |= {clip_id for clip_id in result_ids(store.where(RESULTS), store.settings) if clip_id in wanted}
    return [clip_id for clip_id in wanted if clip_id not in known]


def requeue(store: Store, found: GivenUp) -> None:
    store.delete(found.key)


def clip_of(key: str) -> str:
    """Whose record or failure it is: `<folder>/<clip_id>.<settings hash>.json`, where ids may hold dots."""
    return key.partition("/")[2].removesuffix(".json").rpartition(".")[0]


def _read(store: Store, key: str) -> GivenUp:
    clip_id = clip_of(key)
    try:
        newest = json.loads(store.get(key))["failures"][-1]
        return GivenUp(key=key, clip_id=clip_id, reason=f"{newest['stage']}: {newest['message']}")
    except StoreError:
        if store.head(key) is not None:
            raise
        return GivenUp(key=key, clip_id=clip_id, reason="")  # recorded meanwhile
    except (ValueError, KeyError, IndexError, TypeError):
        return GivenUp(key=key, clip_id=clip_id, reason="")
