"""Leases for tests that are about something else."""

from datetime import UTC, datetime

from pipeline.lease.acquiring import acquire
from pipeline.lease.holder import Machine, new_run_id
from pipeline.lease.holding import Lease
from pipeline.probing import StoreMode
from pipeline.settings import LeaseSettings
from pipeline.store import Store

ATOMIC = StoreMode(create="atomic", clock_offset_s=0.0)


def lease_of(store: Store) -> Lease:
    """Whoever had it is taken for dead; nothing renews this one."""
    machine = Machine(is_gone=lambda holder: True)
    return acquire(store, run_id=new_run_id(datetime.now(UTC)), mode=ATOMIC, settings=LeaseSettings(), machine=machine)
