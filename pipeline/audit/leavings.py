"""What lies in an output beside its records and their files: files that no record names, half-written ones, leases."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pipeline.durable import half_written
from pipeline.keyset import KeySet
from pipeline.lease.claims import CLAIM, LEASE, first_claim, is_released, last_sign
from pipeline.lease.holder import is_gone
from pipeline.ledger import ClipRecord
from pipeline.probing import PROBE
from pipeline.publication import CLIPS, KINDS, file_name
from pipeline.store import Entry, Store

CLOCK_STEP = timedelta(seconds=2)  # to which times of a store and of a lease's holder agree
CHUNK = 4096  # keys
PATIENCE = 2  # so many times its length a lease is thought to live, for clocks may differ
Item = TypeVar("Item")


def listed_files(store: Store) -> KeySet:
    """Keys below `clips/`. To be taken before records are listed: what is named after it was listed is no orphan."""
    return KeySet(each.key for each in store.list(CLIPS))


def own_names(record: ClipRecord) -> list[str]:
    """Of a record's files, those that it names and those that it should."""
    given = [file.name for file in record.finished.files.values()]
    return list({*given, *(file_name(record.clip_id, record.finished.attempt, kind) for kind in KINDS)})


def orphans(store: Store, *, listed: KeySet, named: KeySet) -> Iterator[Entry]:
    """Files that were there when `listed` was taken, are there still, and that no record names."""
    for entries in _chunks(store.list(CLIPS)):
        keys = [each.key for each in entries]
        for entry, is_orphan in zip(entries, (listed.contains(keys) & ~named.contains(keys)).tolist(), strict=True):
            if is_orphan:
                yield entry


def unfinished(store: Store) -> Iterator[Entry]:
    """What writers that were killed left half-written, on disk; a bucket shows nothing of the kind."""
    folder = folder_of(store)
    if folder is None:
        return
    for path in half_written(folder):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue  # just finished
        yield Entry(path.relative_to(folder).as_posix(), found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def tried_out(store: Store) -> Iterator[Entry]:
    """What starts wrote to try storage out, and could not remove again."""
    return (entry for entry in store.list(LEASE) if entry.key.startswith(PROBE))


def folder_of(store: Store) -> Path | None:
    return None if "://" in store.uri else Path(store.uri)


@dataclass(frozen=True, kw_only=True)
class LeaseSeen:
    """Who may have the output. While somebody may, what no record names yet may still get a record."""

    holder: str | None  # None: nobody, or somebody who is known to be gone
    started_at: datetime | None  # by the store's clock; what the holder has made is younger
    is_old: bool  # it was not renewed for long, by our clock: probably gone, too
    num_stale: int  # leases that nobody gave back and nobody seems to have


def look_at_lease(store: Store, *, now: datetime) -> LeaseSeen:
    """StoreError for what cannot be read as a lease."""
    entries = {each.key: each for each in store.list(LEASE)}
    first = first_claim(store)
    if first is None:
        return LeaseSeen(holder=None, started_at=None, is_old=False, num_stale=0)
    num_stale = sum(1 for key in entries if CLAIM.fullmatch(key) and key != first.key)
    if is_released(last_sign(store, first)):
        return LeaseSeen(holder=None, started_at=None, is_old=False, num_stale=num_stale)
    if is_gone(first.holder):
        return LeaseSeen(holder=None, started_at=None, is_old=True, num_stale=num_stale + 1)
    times = [entries[key].modified_at for key in (first.key, first.sign_key) if key in entries] or [first.renewed_at]
    is_old = now - max(times) > timedelta(seconds=PATIENCE * first.lease_s)
    # A lease that ran out and was taken again by the same holder is younger than what that may be working on.
    started_at = min(*times, datetime.fromisoformat(first.holder.since)) - CLOCK_STEP
    return LeaseSeen(
        holder=str(first.holder), started_at=started_at, is_old=is_old, num_stale=num_stale + (1 if is_old else 0)
    )


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    left = iter(items)
    while chunk := list(islice(left, CHUNK)):
        yield chunk
