"""What lies in an output beside its records and their files: files that no record names, and leases."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar

from pipeline.keyset import KeySet
from pipeline.lease.claims import CLAIM, LEASE, first_claim, is_released, last_sign
from pipeline.lease.holder import is_gone
from pipeline.ledger import ClipRecord
from pipeline.publication import CLIPS
from pipeline.store import Entry, Store

KINDS = ("mp4", "wav", "jpg")
CHUNK = 4096  # keys
PATIENCE = 2  # leases unrenewed for so many times their length are void whatever clocks say
Item = TypeVar("Item")


def listed_files(store: Store) -> KeySet:
    """Keys below `clips/`. To be taken before records are listed: what is named after it was listed is no orphan."""
    return KeySet(each.key for each in store.list(CLIPS))


def own_names(record: ClipRecord) -> list[str]:
    """Of a record's files, those that it names and those that it should."""
    given = [file.name for file in record.finished.files.values()]
    return [*given, *(file_name(record, kind) for kind in KINDS)]


def file_name(record: ClipRecord, kind: str) -> str:
    return f"{CLIPS}/{record.clip_id}.{record.finished.attempt}.{kind}"


def orphans(store: Store, *, listed: KeySet, named: KeySet) -> Iterator[Entry]:
    """Files that were there when `listed` was taken, are there still, and that no record names."""
    for entries in _chunks(store.list(CLIPS)):
        keys = [each.key for each in entries]
        for entry, is_orphan in zip(entries, (listed.contains(keys) & ~named.contains(keys)).tolist(), strict=True):
            if is_orphan:
                yield entry


@dataclass(frozen=True, kw_only=True)
class LeaseSeen:
    """Who has the output. Without a holder that may live, whatever no record names will never have one."""

    holder: str | None  # None: nobody, or nobody that can be alive
    started_at: datetime | None  # by the store's clock; what is younger may be on its way into a record
    num_stale: int  # leases that nobody gave back


def look_at_lease(store: Store, *, stores_now: datetime) -> LeaseSeen:
    """StoreError for what cannot be read as a lease."""
    entries = {each.key: each for each in store.list(LEASE)}
    first = first_claim(store)
    if first is None:
        return LeaseSeen(holder=None, started_at=None, num_stale=0)
    num_older = sum(1 for key in entries if CLAIM.fullmatch(key) and key != first.key)
    if is_released(last_sign(store, first)):
        return LeaseSeen(holder=None, started_at=None, num_stale=num_older)
    times = [entries[key].modified_at for key in (first.key, first.sign_key) if key in entries] or [stores_now]
    is_old = stores_now - max(times) > timedelta(seconds=PATIENCE * first.lease_s)
    if is_old or is_gone(first.holder):
        return LeaseSeen(holder=None, started_at=None, num_stale=num_older + 1)
    # A lease that ran out and was taken again by the same holder is younger than what it may be working on.
    started_at = min(*times, datetime.fromisoformat(first.holder.since))
    return LeaseSeen(holder=str(first.holder), started_at=started_at, num_stale=num_older)


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    left = iter(items)
    while chunk := list(islice(left, CHUNK)):
        yield chunk
