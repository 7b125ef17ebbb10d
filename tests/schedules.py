"""Runs of one output, held up, killed and set going again at every call of storage, as hypothesis likes.

Their clocks run alike, as clocks do; everything else is up to the schedule. Subclasses say what a run does.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.lease.holder import Holder, Machine
from pipeline.lease.holding import Lease
from pipeline.probing import StoreMode
from pipeline.settings import LeaseSettings
from tests.interleaving import Process, pause
from tests.memory_store import Create, MemoryStore

SETTINGS = LeaseSettings(lease_s=12, settle_s=2)  # holds for 10 s, renewed every 4
MOST_AT_ONCE = 3
TICK_S = 0.5
WHICH = st.integers(0, MOST_AT_ONCE - 1)
SECONDS = st.sampled_from([0, 1, 3, 5, 9, 11, 13])
EVENTS = ("kill", "leave", "refused", "lost", "repeated", "land")


@dataclass
class Run:
    """One process that takes the lease and does something with it."""

    run_id: str
    is_here: bool  # whether others can see that its process is gone
    process: Process = field(init=False)
    lease: Lease | None = None

    def leave(self) -> None:
        """It is asked to stop."""
        raise NotImplementedError

    @property
    def may_write(self) -> bool:
        return self.lease is not None and not self.process.is_over and self.lease.is_held


Kind = TypeVar("Kind", bound=Run)


class Schedule(RuleBasedStateMachine, Generic[Kind]):
    """A run that is not stepped is held up, whatever the clock says."""

    @initialize(create=st.sampled_from(["atomic", "racy", "ignored"]))
    def begin(self, create: Create) -> None:
        self.now_s = 1000.0
        self.store = MemoryStore(create=create, clock=lambda: self.now_s)
        self.mode = StoreMode(create=create, clock_offset_s=0.0)
        self.machine = Machine(clock=lambda: self.now_s, sleep=self.sleep, is_gone=self.is_gone)
        self.runs: list[Kind] = []

    @property
    def living(self) -> list[Kind]:
        return [run for run in self.runs if not run.process.is_over]

    @precondition(lambda self: self.living)
    @rule(seconds=SECONDS)
    def go_on(self, seconds: float) -> None:
        """Time goes by as it does."""
        self._go_on(seconds)

    @precondition(lambda self: self.living)
    @rule(which=WHICH, before=SECONDS, count=st.integers(1, 9), after=SECONDS)
    def hold_up(self, which: int, before: float, count: int, after: float) -> None:
        """One of them stands still, then gets a little further, then stands still again."""
        run = self.living[which % len(self.living)]
        self._go_on(before, without=run)
        for _ in range(count):
            run.process.step()
            self.at_most_one_may_write()
        self._go_on(after, without=run)

    def _go_on(self, seconds: float, *, without: Run | None = None) -> None:
        end = self.now_s + seconds
        running = [run for run in self.living if run is not without]
        while self.now_s < end:
            self.now_s += TICK_S
            for run in running:
                run.process.run_on()
                self.at_most_one_may_write()

    @precondition(lambda self: self.living)
    @rule(which=WHICH, what=st.sampled_from(EVENTS))
    def meet(self, which: int, what: str) -> None:
        run = self.living[which % len(self.living)]
        if what == "kill":
            run.process.kill()
        elif what == "leave":
            run.leave()
        elif what == "land":
            for late in self.store.late[:1]:
                self.store.land(late)
        else:
            self.store.troubles = [what]  # type: ignore[list-item]

    @invariant()
    def at_most_one_may_write(self) -> None:
        writers = [run.run_id for run in self.runs if run.may_write]
        assert len(writers) <= 1, writers

    def sleep(self, seconds: float) -> None:
        end = self.now_s + seconds
        while self.now_s < end:
            pause(waiting=True)

    def is_gone(self, holder: Holder) -> bool:
        run = next(run for run in self.runs if run.run_id == holder.run_id)
        return run.is_here and run.process.is_over

    def end_all(self) -> None:
        for run in self.living:
            run.process.kill()
        self.store.troubles.clear()
