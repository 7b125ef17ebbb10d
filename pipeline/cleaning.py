"""Removing what a crash, or a change of mind, has left in an output: files that no record names, superseded records.

Nothing that anybody counts on goes: not what a run at work may still record, nor what `results.parquet` names. First
files are listed, then the lease is looked at, then records: what a run uploads later is not among the files, what it
uploaded before is younger than its lease, or named by a record.
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


def clean_output(
    store: Store, *, rows: Rows | None, lease: LeaseSettings, dry_run: bool, machine: Machine = REAL
) -> Iterator[Removal]:
    """Each thing that goes, before it does; it is gone when the next one is asked for. With `dry_run` nothing goes.

    `rows`: records that none of them has go too; None: no record does. LeaseHeld if a run is at work that may count on
    them. A record that cannot be read is a StoreError: its files would look like nobody's.
    """
    if store.head(RUN) is None:
        raise ConfigError(f"{store.where(RUN)} is not there: no run has left anything to remove")
    if rows is not None and rows.num_rows > len(rows.index):
        bad = rows.num_rows - len(rows.index)
        raise ConfigError(f"{rows.manifest}: no clip can be made of {bad} row(s); what they had would be superseded")
    with ExitStack() as stack:
        claims = stack.enter_context(fetched_claims(store))
        listed = listed_files(store)
        take = partial(acquire, store, settings=lease, machine=machine)
        held, before = _take_lease(store, stack, take, must=rows is not None, dry_run=dry_run)
        for removal in _removals(store, claims, rows=rows, listed=listed, before=before):
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
    store: Store, claims: Claims, *, rows: Rows | None, listed: KeySet, before: datetime
) -> Iterator[Removal]:
    """Records first: a crash then leaves files without a record, never a record without files."""
    claimed, named = KeySet(claims.names()), KeySet(claims.names())
    wanted = rows.record_keys() if rows is not None else None
    for key, record in _records(store):
        if wanted is None or key in wanted or key in claimed or key != record.key:  # the last: for `audit` to find
            named.add(own_names(record))
        else:
            yield Removal(key=key, size_bytes=None, reason="no row asks for it with these settings")
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


def _records(store: Store) -> Iterator[tuple[str, ClipRecord]]:
    ledger = Ledger(store)
    return side_by_side(lambda key: (key, ledger.read_record(key)), ledger.record_keys(), threads=NUM_READERS)


def _remove(store: Store, removal: Removal) -> None:
    folder = folder_of(store)
    if folder is not None and TEMPORARY.search(removal.key):
        with translated("delete", store.where(removal.key)):
            (folder / removal.key).unlink(missing_ok=True)
    else:
        store.delete(removal.key)
