"""Looks on while a manifest is rendered: ends it in time, and says at once what cannot wait until its end."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.driver import StopSignal
from pipeline.nightly import notices
from pipeline.nightly.notices import Notice
from pipeline.summary import Snapshot

KNOWN = 0.1  # of the work done, before what is left is worth a warning


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one render."""

    last_start: datetime  # from then on no clip is started: by the estimate it would not end in time
    must_end_by: datetime  # the window's end, or what the budget allows
    next_opening: datetime  # when what is left goes on
    must_finish_by: datetime | None
    failed_threshold: int | None
    budget: float | None
    budget_threshold: float | None


class Watch:
    """Called with each snapshot of a run. Asks its driver to stop by counting up its signal."""

    def __init__(
        self,
        stop: StopSignal,
        *,
        limits: Limits,
        name: str,
        night: str,
        work: str,
        failed_before: int,
        gpu_hours: Callable[[], float],
        now: Callable[[], datetime],
        tell: Callable[[Notice], None],
    ) -> None:
        self._stop, self._limits, self._tell, self._now = stop, limits, tell, now
        self._name, self._night, self._work = name, night, work
        self._failed_before, self._gpu_hours = failed_before, gpu_hours
        self._has_asked = False

    def __call__(self, snapshot: Snapshot) -> None:
        now = self._now()
        self._end_in_time(now)
        self._tell_of_failures(snapshot)
        self._tell_of_budget()
        self._tell_of_risk(snapshot, now)

    @property
    def ended_it(self) -> bool:
        """It was us, and nobody else."""
        return self._has_asked and self._stop.count == 1

    def _end_in_time(self, now: datetime) -> None:
        """What is in flight has until the very end."""
        if now >= self._limits.last_start and not self._stop.count:
            self._has_asked = True
            self._stop.reason = "the end of the window or of the budget"
            self._stop.grace_s = max((self._limits.must_end_by - now).total_seconds(), 0.0)
            self._stop.count = 1

    def _tell_of_failures(self, snapshot: Snapshot) -> None:
        most, num_failed = self._limits.failed_threshold, self._failed_before + snapshot.num_failed
        if most is not None and num_failed >= most:
            self._tell(
                notices.many_failed(self._name, night=self._night, work=self._work, num_failed=num_failed, most=most)
            )

    def _tell_of_budget(self) -> None:
        budget, share = self._limits.budget, self._limits.budget_threshold
        if budget is not None and share is not None and (used := self._gpu_hours()) >= budget * share:
            self._tell(notices.budget_used(night=self._night, used=used, budget=budget, share=share))

    def _tell_of_risk(self, snapshot: Snapshot, now: datetime) -> None:
        due, eta_s = self._limits.must_finish_by, snapshot.eta_s
        if due is None or eta_s is None or snapshot.cost_done < KNOWN * snapshot.cost:
            return
        expected = now + timedelta(seconds=eta_s)
        if expected > self._limits.must_end_by:
            expected = self._limits.next_opening + (expected - self._limits.must_end_by)
        if expected > due:
            self._tell(
                notices.at_risk(self._name, night=self._night, work=self._work, must_finish_by=due, expected=expected)
            )
