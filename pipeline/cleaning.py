"""Removing what a crash, or a change of mind, has left in an output: files that no record names, superseded records.

Nothing that anybody counts on goes: not what a run at work may still record, not what `results.parquet` names, and,
unless that is asked for, no superseded record that nothing replaces (a run of some rows leaves others as they were).
First files are listed, then the lease is looked at, then records: what a run uploads later is not among the files, what
it uploaded before is younger than its lease, or named by a record.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from pipeline.audit.claims import Claims, fetched_claims
from pipeline.audit.leavings import folder_of, listed_files, look_at_lease, orphans, own_names, tried_out, unfinished
from pipeline.audit.rows import Rows
from pipeline.counting import counted
from pipeline.durable import TEMPORARY
from pipeline.errors import ConfigError, LeaseHeld
from pipeline.keyset import KeySet
from pipeline.lease.acquiring import REAL, acquire
from pipeline.lease.holder import Machine, new_run_id
from pipeline.lease.holding import Lease
from pipeline.ledger import NUM_READERS, ClipRecord, Ledger
from pipeline.probing import probe
from pipeline.publication import CLIPS, KINDS
from pipeline.results import RUN
from pipeline.settings import LeaseSettings
from pipeline.side_by_side import side_by_side
from pipeline.store import Store
from pipeline.store_errors import translated

OURS = re.compile(rf"{CLIPS}/[^/]+\.[0-9a-f]{{8}}\.({'|'.join(KINDS)})")  # what else lies there is somebody's own
UNFINISHED_FOR = timedelta(hours=1)  # before what is half-written counts as given up
NOBODY = datetime.max.replace(tzinfo=UTC)
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Something that is to go."""

    key: str
    size_bytes: int | None  # None: a record
    reason: str

    def __str__(self) -> str:
        size = "" if self.size_bytes is None else f" ({self.size_bytes:,} bytes)"
        return f"{self.key}{size}: {self.reason}"


@dataclass(kw_only=True)
class Superseded:
    """Records that none of `rows` asks for are to go where another one of their clip counts, with its files there."""

    rows: Rows
    all: bool = False  # the others as well: of clips that have no row, or were not made again yet
    num_kept: int = 0  # of those others, left alone; known at the end

    def __post_init__(self) -> None:
        bad = self.rows.num_rows - len(self.rows.index)
        if bad:
            words = f"no clip can be made of {counted(bad, 'row')}; what they had would be superseded"
            raise ConfigError(f"{self.rows.manifest}: {words}")


def clean_output(
    store: Store, *, superseded: Superseded | None, lease: LeaseSettings, dry_run: bool, machine: Machine = REAL
) -> Iterator[Removal]:
    """Each thing that goes, before it does; it is gone when the next one is asked for. With `dry_run` nothing goes.

    Without `superseded` no record goes; with it LeaseHeld if a run is at work that may count on them. A record that
    cannot be read is a StoreError: its files would look like nobody's.
    """
    if store.head(RUN) is None:
        raise ConfigError(f"{store.where(RUN)} is not there: no run has left anything to remove")
    with ExitStack() as stack:
        claims = stack.enter_context(fetched_claims(store))
        listed = listed_files(store)
        take = partial(acquire, store, settings=lease, machine=machine)
        held, before = _take_lease(store, stack, take, must=superseded is not None, dry_run=dry_run)
        for removal in _removals(store, claims, superseded=superseded, listed=listed, before=before):
            yield removal
            if not dry_run:
                if held is not None:
                    held.check()
                _remove(store, removal)


def _take_lease(
    store: Store, stack: ExitStack, take: Callable[..., Lease], *, must: bool, dry_run: bool
) -> tuple[Lease | None, datetime]:
    """And the moment before which whatever no record names will never have one.

    Where nobody can be at work the lease is not needed, and a run may start meanwhile; one that only seems to be gone
    must be told that it has lost it.
    """
    seen = look_at_lease(store, now=datetime.now(UTC))
    if dry_run or (seen.holder is None and not must):
        return None, NOBODY if seen.is_old or seen.started_at is None else seen.started_at
    try:
        run_id = f"clean-{new_run_id(datetime.now(UTC))}"
        held = stack.enter_context(take(run_id=run_id, mode=probe(store)))
    except LeaseHeld as error:
        if must:
            raise
        log.info("%s; what it may still record is left alone", error)
        seen = look_at_lease(store, now=datetime.now(UTC))
        return None, seen.started_at or NOBODY
    return held, NOBODY


def _removals(
    store: Store, claims: Claims, *, superseded: Superseded | None, listed: KeySet, before: datetime
) -> Iterator[Removal]:
    """Records first: a crash then leaves files without a record, never a record without files."""
    named = KeySet(claims.names())
    if superseded is None:
        for _, record in _records(store, Ledger(store).record_keys()):
            named.add(own_names(record))
    else:
        yield from _old_records(store, claims, superseded, listed=listed, named=named)
    for entry in orphans(store, listed=listed, named=named):
        if entry.modified_at < before and OURS.fullmatch(entry.key):
            yield Removal(key=entry.key, size_bytes=entry.size_bytes, reason="no record names it")
    before = min(before, datetime.now(UTC) - UNFINISHED_FOR)
    for entry in list(unfinished(store)):
        if entry.modified_at < before:
            yield Removal(key=entry.key, size_bytes=entry.size_bytes, reason="half-written, and nobody goes on with it")
    for entry in list(tried_out(store)):
        if entry.modified_at < before:
            yield Removal(key=entry.key, size_bytes=entry.size_bytes, reason="of a start that was cut off")


def _old_records(
    store: Store, claims: Claims, superseded: Superseded, *, listed: KeySet, named: KeySet
) -> Iterator[Removal]:
    """What records that stay name is added to `named`. All are read before the first goes."""
    claimed, wanted = KeySet(claims.names()), superseded.rows.record_keys()
    old, made = KeySet(), KeySet()  # keys; ids of clips that are there as they are wanted
    for key, record in _records(store, Ledger(store).record_keys()):
        counts = key in wanted or key in claimed
        if not counts and key == record.key:
            old.add([key])
            continue
        named.add(own_names(record))  # of another one's name: for `audit` to find
        if counts and listed.contains([file.name for file in record.finished.files.values()]).all():
            made.add([record.clip_id])
    for key, record in _records(store, (key for key in Ledger(store).record_keys() if key in old)):
        if superseded.all or record.clip_id in made:
            yield Removal(key=key, size_bytes=None, reason="no row asks for it with these settings")
        else:
            superseded.num_kept += 1
            named.add(own_names(record))


def _records(store: Store, keys: Iterator[str]) -> Iterator[tuple[str, ClipRecord]]:
    ledger = Ledger(store)
    return side_by_side(lambda key: (key, ledger.read_record(key)), keys, threads=NUM_READERS)


def _remove(store: Store, removal: Removal) -> None:
    folder = folder_of(store)
    if folder is not None and TEMPORARY.search(removal.key):
        with translated("delete", store.where(removal.key)):
            (folder / removal.key).unlink(missing_ok=True)
    else:
        store.delete(removal.key)
