"""Runs of one output, held up, killed and set going again at every call of storage, as hypothesis likes.

Their clocks run alike, as clocks do; everything else is up to the schedule. Subclasses say what a run does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Generic, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.lease.holder import Holder, Machine
from pipeline.lease.holding import Lease
from pipeline.probing import StoreMode
from pipeline.settings import LeaseSettings
from tests.interleaving import Process, pause
from tests.memory_store import Create, MemoryStore, Trouble

SETTINGS = LeaseSettings(lease_s=12, settle_s=2)  # holds for 10 s, renewed every 4
PATIENT = replace(SETTINGS, wait_s=60)
MOST_AT_ONCE = 3
TICK_S = 0.5
MOST_S = 12  # until somebody is where it is to stop
WHICH = st.integers(0, MOST_AT_ONCE - 1)
BEFORE, AFTER = st.sampled_from([1, 3, 5, 9]), st.sampled_from([0, 5, 13, 40])  # seconds
TROUBLES: tuple[Trouble, ...] = ("refused", "lost", "repeated")
EVENTS = ("nothing", "nothing", "nothing", "start", "start", "kill", "leave", "land", *TROUBLES)


@dataclass
class Run:
    """One process that takes the lease and does something with it."""

    run_id: str
    is_here: bool  # whether others can see that its process is gone
    is_patient: bool  # whether it waits for those who live
    process: Process = field(init=False)
    lease: Lease | None = None

    def leave(self) -> None:
        """It is asked to stop."""
        raise NotImplementedError

    @property
    def settings(self) -> LeaseSettings:
        return PATIENT if self.is_patient else SETTINGS

    @property
    def may_write(self) -> bool:
        return self.lease is not None and not self.process.is_over and self.lease.is_held


Kind = TypeVar("Kind", bound=Run)


class Schedule(RuleBasedStateMachine, Generic[Kind]):
    """A run that is not stepped is held up, whatever the clock says."""

    folders: ClassVar[Sequence[str]] = ("lease",)  # that are written to
    stops: ClassVar[Sequence[str]] = ("no", "no", "anywhere", "write")  # where one of them stands still
    others: ClassVar[Sequence[str]] = ()  # what else a run may be about to do

    @initialize(create=st.sampled_from(["atomic", "racy", "ignored"]))
    def begin(self, create: Create) -> None:
        self.now_s = 1000.0
        self.store = MemoryStore(create=create, clock=lambda: self.now_s)
        self.mode = StoreMode(create=create, clock_offset_s=0.0)
        self.machine = Machine(clock=lambda: self.now_s, sleep=self.sleep, is_gone=self.is_gone)
        self.runs: list[Kind] = []
        self.set_up()

    def set_up(self) -> None:
        """What a subclass begins with."""

    @property
    def living(self) -> list[Kind]:
        """The holder first, so that more happens to it."""
        return sorted((run for run in self.runs if not run.process.is_over), key=lambda run: not run.may_write)

    @rule(
        what=st.sampled_from(EVENTS),
        which=WHICH,
        before=BEFORE,
        after=AFTER,
        data=st.data(),
    )
    def happen(self, what: str, *, which: int, before: float, after: float, data: st.DataObject) -> None:
        """Something happens, and time goes by; perhaps one of them stands still at some point of it.

        One rule, because hypothesis leaves some of several out of a whole schedule.
        """
        if (what == "start" or not self.living) and len(self.living) < MOST_AT_ONCE:
            self.start(data)
        run = self.living[which % len(self.living)]  # that anything happens to
        if what in TROUBLES:
            self.store.troubles[data.draw(st.sampled_from(self.folders))] = what
        elif what in ("kill", "leave"):
            run.process.kill() if what == "kill" else run.leave()
        elif what == "land":
            for late in self.store.late[:1]:
                self.store.land(late)
        stop = data.draw(st.sampled_from(self.stops))
        self.go_on(before, without=run if stop == "anywhere" else None)
        if stop == "write":
            self.go_on(MOST_S, stops=run, at=data.draw(st.sampled_from([*self.folders, *self.others])))
        if stop != "no":
            for _ in range(data.draw(st.integers(0, 9))):
                run.process.step()
                self.at_most_one_may_write()
        self.go_on(after, without=run if stop != "no" else None)

    def start(self, data: st.DataObject | None) -> None:
        """Another run begins; None: one that nothing happens to."""
        raise NotImplementedError

    def go_on(
        self, seconds: float, *, without: Kind | None = None, stops: Kind | None = None, at: str | None = None
    ) -> None:
        """Time goes by, for all but one; or until one is about to write below the folder `at`."""
        end = self.now_s + seconds
        running = [run for run in self.living if run is not without]
        while self.now_s < end and not (stops and (stops.process.is_over or stops.process.at.startswith(str(at)))):
            self.now_s += TICK_S
            for run in running:
                run.process.run_on(self.now_s, to=at if run is stops else None)
                self.at_most_one_may_write()

    @invariant()
    def at_most_one_may_write(self) -> None:
        writers = [run.run_id for run in self.runs if run.may_write]
        assert len(writers) <= 1, writers

    def sleep(self, seconds: float) -> None:
        end = self.now_s + seconds
        while self.now_s < end:
            pause(until=end)

    def is_gone(self, holder: Holder) -> bool:
        run = next(run for run in self.runs if run.run_id == holder.run_id)
        return run.is_here and run.process.is_over

    def end_all(self) -> None:
        for run in self.living:
            run.process.kill()
        self.store.troubles.clear()
