"""The lease alone, under any schedule: never two runs that may write at once, and never an output that nobody gets."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from pipeline.errors import LeaseHeld, LeaseLost, StoreError
from pipeline.lease import claims
from pipeline.lease.acquiring import acquire
from pipeline.lease.claims import first_claim
from pipeline.lease.holder import Machine
from pipeline.probing import StoreMode
from tests.interleaving import Process
from tests.memory_store import MemoryStore
from tests.schedules import SETTINGS, TICK_S, Run, Schedule

MOST_TICKS = 100  # until somebody has the lease who is left alone


@pytest.fixture(autouse=True)
def no_margin() -> Iterator[None]:
    """Nothing is left to chance: a holder may write up to the very moment at which others may take its lease."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "HOLD_PART", 1.0)
        yield


@dataclass
class Idler(Run):
    """Takes the lease, then renews it and looks whether it has it, until it is told to leave."""

    leaves: bool = False

    def leave(self) -> None:
        self.leaves = True

    def work(self, store: MemoryStore, mode: StoreMode, machine: Machine) -> None:
        try:
            self.lease = acquire(store, run_id=self.run_id, mode=mode, settings=self.settings, machine=machine)
            while not self.leaves:
                renewed_at = machine.clock()
                while machine.clock() < renewed_at + SETTINGS.lease_s / 3 and not self.leaves:
                    machine.sleep(TICK_S)
                    self.lease.check()
                self.lease.renew()
            self.lease.release()
        except (LeaseHeld, LeaseLost, StoreError):
            pass


class Leases(Schedule[Idler]):
    stops = ("no", "anywhere", "anywhere", "anywhere", "write")

    def start(self, data: st.DataObject | None) -> None:
        is_here, is_patient = (True, False) if data is None else data.draw(st.tuples(st.booleans(), st.booleans()))
        run = Idler(f"run-{len(self.runs)}", is_here, is_patient)
        run.process = Process(lambda: run.work(self.store, self.mode, self.machine))
        self.runs.append(run)

    @invariant()
    def epochs_never_come_again(self) -> None:
        claim = first_claim(self.store)
        epoch, before = claim.epoch if claim else 0, getattr(self, "epoch", 0)
        assert epoch >= before
        self.epoch = epoch

    def teardown(self) -> None:
        """When all others are gone, whoever comes next gets it."""
        self.end_all()
        self.start(None)
        for _ in range(MOST_TICKS):
            if self.runs[-1].may_write:
                break
            self.now_s += TICK_S
            self.runs[-1].process.run_on(self.now_s)
        assert self.runs[-1].may_write
        self.end_all()


TestLeases = Leases.TestCase
# Shrinking takes minutes; to look for the shortest schedule take the phases away.
TestLeases.settings = settings(max_examples=250, stateful_step_count=10, phases=[Phase.generate])
