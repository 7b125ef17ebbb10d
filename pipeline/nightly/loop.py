"""The nightly: looks at the inbox, starts what may start, until nothing may; for ever or once.

It knows neither Ray nor the time: a `Renderer` looks at manifests and renders them, a `Clock` tells and waits. What it
has to remember is in storage, so that it may be killed at any time and started again.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.counting import counted
from pipeline.driver import StopSignal
from pipeline.errors import ClusterError, LeaseHeld, LeaseLost, ManifestError, OutputPaused, StoreError
from pipeline.nightly import notices
from pipeline.nightly.agenda import Room, Verdict, Work, first_that_starts, forecast, room_of
from pipeline.nightly.inbox import Found
from pipeline.nightly.journal import Journal
from pipeline.nightly.outbox import Outbox
from pipeline.nightly.renderer import Clock, Look, Renderer
from pipeline.nightly.settings import NightlySettings
from pipeline.nightly.tonight import Standing, State, Tonight
from pipeline.nightly.watch import Limits, Watch
from pipeline.nightly.windows import Night
from pipeline.store import Store
from pipeline.summary import ENVIRONMENT, STOPPED, RunSummary

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Report:
    """How it ended, and how each manifest stands."""

    exit_code: int
    standings: Mapping[str, Standing]
    night: Night
    next_opening: datetime
    gpu_hours: float


class Nightly:
    def __init__(
        self,
        settings: NightlySettings,
        *,
        inbox: Store,
        output: Store,
        renderer: Renderer,
        clock: Clock,
        journal: Journal,
        outbox: Outbox,
        check_lease: Callable[[], None],
    ) -> None:
        """`check_lease` raises LeaseLost when another nightly has the output."""
        self.settings, self.renderer, self.clock = settings, renderer, clock
        self.inbox, self.output = inbox, output
        self.journal, self.outbox, self.check_lease = journal, outbox, check_lease
        self.tonight = self._begin(settings.window.next_night(clock.now()))
        self.is_interrupted = False
        self._sent_at = datetime.min.replace(tzinfo=UTC)

    def run(self) -> Report:
        """Until nothing may start tonight; with `forever` until it is stopped."""
        try:
            self.check_lease()
            wait_s = self._step()
            while wait_s is not None and not self.is_interrupted:
                self.clock.sleep(wait_s)
                wait_s = self._step_whatever_storage_does()
            self.outbox.flush()
        finally:
            self.outbox.close()
        return self._report()

    def _report(self) -> Report:
        night = self.tonight.night
        is_ahead = self.clock.now() < night.opens_at
        return Report(
            exit_code=STOPPED if self.is_interrupted else self.tonight.exit_code,
            standings=self.tonight.standings,
            night=night,
            next_opening=night.opens_at if is_ahead else self.settings.window.after(night).opens_at,
            gpu_hours=self._gpu_hours(),
        )

    def _step_whatever_storage_does(self) -> float | None:
        """One that runs for ever outlives a storage that is away for an hour."""
        try:
            self.check_lease()
            return self._step()
        except StoreError as error:
            if not self.settings.forever or isinstance(error, LeaseLost):
                raise
            log.error("%s: looked at again in %g s", error, self.settings.poll_s)
            return self.settings.poll_s

    def _step(self) -> float | None:
        """Looks, and renders at most one manifest. Seconds until the next step; None: there is none."""
        now = self.clock.now()
        night = self.settings.window.next_night(now)
        if night != self.tonight.night and (self.settings.forever or night.holds(now)):
            self.tonight = self._begin(night)
        if self.settings.forever and not night.holds(now):
            return min((night.opens_at - now).total_seconds(), self.settings.poll_s)
        works = self.tonight.look_around(now, self._room())
        self._warn_of_deadlines(works)
        self._send_again()
        verdict = first_that_starts(works, self._room(), split=self.settings.split == "any")
        if verdict is None:
            self.outbox.flush()
            return self._idle_s(works)
        self._render(verdict)
        self.outbox.flush()
        return 0.0

    def _begin(self, night: Night) -> Tonight:
        return Tonight(
            night,
            settings=self.settings,
            inbox=self.inbox,
            output=self.output,
            renderer=self.renderer,
            outbox=self.outbox,
        )

    def _idle_s(self, works: list[Work]) -> float | None:
        """How long to wait where nothing starts now; None: not at all."""
        now, night, settings = self.clock.now(), self.tonight.night, self.settings
        if settings.forever:
            return settings.poll_s
        if night.holds(now):
            return settings.settle_s if self.tonight.has_unsettled else None
        early_s = (night.opens_at - now).total_seconds()
        is_early = 0 < early_s <= settings.early_s and (works or self.tonight.has_unsettled)
        return min(early_s, settings.poll_s) if is_early else None

    # One manifest.

    def _render(self, verdict: Verdict) -> None:
        work, now = verdict.work, self.clock.now()
        found, look = self.tonight.taken(work.name)
        limits = self._limits(work, now)
        night = self.tonight.night
        entry = self.journal.begin(work.name, night=night, now=now, must_end_by=limits.must_end_by, gpus=work.gpus)
        left = counted(look.num_left, "clip")
        log.info("%s: %s to render%s", found.file, left, verdict.reason and f" ({verdict.reason})")
        stop, rendered = StopSignal(), None
        watch = self._watch(stop, limits, look)
        try:
            rendered = self.renderer.render(found, stop=stop, observe=watch)
        except (LeaseHeld, OutputPaused) as error:
            log.warning("%s is skipped this time: %s", found.file, error)
            state: State = "held" if isinstance(error, LeaseHeld) else "left"
            self.tonight.put_off(found, state, str(error), until=self._later())
        except ManifestError as error:  # it has changed since it was looked at
            self.tonight.set_aside(found, error)
        except (StoreError, ClusterError) as error:
            self._stopped(found, str(error))
        finally:
            self.journal.end(entry, now=self.clock.now(), rendered=rendered)
        if rendered is not None:
            self._ended(found, look, rendered.summary, by_us=watch.ended_it)

    def _watch(self, stop: StopSignal, limits: Limits, look: Look) -> Watch:
        return Watch(
            stop,
            limits=limits,
            name=look.work.name,
            night=self.tonight.night.name,
            work=look.digest,
            failed_before=len(look.failed),
            gpu_hours=self._gpu_hours,
            now=self.clock.now,
            tell=self.outbox.tell,
        )

    def _ended(self, found: Found, look: Look, summary: RunSummary, *, by_us: bool) -> None:
        if summary.exit_code == ENVIRONMENT:
            self._stopped(found, summary.stopped or "by the environment")
            return
        self.tonight.ended(found, look, summary)
        self.is_interrupted = summary.exit_code == STOPPED and not by_us and not summary.canceled

    def _stopped(self, found: Found, reason: str) -> None:
        self.outbox.tell(notices.stopped(found.name, night=self.tonight.night.name, reason=reason))
        self.tonight.put_off(found, "stopped", reason, until=self._later())

    def _later(self) -> datetime:
        return self.clock.now() + timedelta(seconds=self.settings.retry_after_s)

    # Time and budget.

    def _gpu_hours(self) -> float:
        return self.journal.gpu_hours(self.tonight.night, now=self.clock.now())

    def _room(self) -> Room:
        settings, now = self.settings, self.clock.now()
        used = self._gpu_hours()
        return room_of(self.tonight.night, now, window=settings.window, budget=settings.budget, used=used)

    def _limits(self, work: Work, now: datetime) -> Limits:
        settings = self.settings
        end = now + timedelta(seconds=self._room().left_for(work))
        return Limits(
            last_start=end - timedelta(seconds=work.clip_s or 0.0),
            must_end_by=end,
            next_opening=settings.window.after(self.tonight.night).opens_at,
            must_finish_by=self._due(),
            failed_threshold=settings.failed_threshold,
            budget=settings.budget,
            budget_threshold=settings.budget_threshold,
        )

    def _due(self) -> datetime | None:
        text = self.settings.must_finish_by
        return self.settings.window.moment(text, night=self.tonight.night) if text is not None else None

    def _warn_of_deadlines(self, works: list[Work]) -> None:
        due, now, settings = self._due(), self.clock.now(), self.settings
        if due is None:
            return
        ends = forecast(
            works,
            window=settings.window,
            now=now,
            budget=settings.budget,
            used=self._gpu_hours(),
            split=settings.split == "any",
        )
        for work in works:
            expected = ends[work.name]
            if expected <= due if expected is not None else work.seconds is None and now < due:
                continue
            digest = self.tonight.look_of(work.name).digest
            night = self.tonight.night.name
            self.outbox.tell(
                notices.at_risk(work.name, night=night, work=digest, must_finish_by=due, expected=expected)
            )

    def _send_again(self) -> None:
        now = self.clock.now()
        if (now - self._sent_at).total_seconds() >= self.settings.retry_after_s:
            self._sent_at = now
            self.outbox.send_unsent()
