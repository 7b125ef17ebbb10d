"""The loop of a run: offer clips to crews, collect what came of it, judge failures, record what is finished.

It talks to Protocols only and never touches pixels: latents and embeddings pass by as handles. What to do about a
failure is `policy`'s to decide, where each clip is `board`'s to know.
"""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.board import Board, Place, Track
from pipeline.conditions import Conditions, users_of
from pipeline.errors import StoreError
from pipeline.fleet import (
    CONDITIONS_LOST,
    LATENTS_LOST,
    Done,
    EncodeOrder,
    Event,
    FinishOrder,
    Fleet,
    Joined,
    Lost,
    Order,
    Ready,
    Refused,
    RenderOrder,
)
from pipeline.offers import Offers
from pipeline.plan import clip_cost
from pipeline.policy import FATAL, Streaks, Verdict, judge, places_behind
from pipeline.settings import ClusterSettings, RetrySettings
from pipeline.summary import ENVIRONMENT, STOPPED, Snapshot
from pipeline.types import Clip, ClipFailure, Finished, Stage, Wish

POLL_S = 0.25  # how late a signal may be noticed
STAGES: dict[Stage, str] = {"encode": "prompt encoder", "render": "render group", "finish": "finisher"}
log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Makes durable what became of a clip. StoreError stops the run."""

    def record(self, clip: Clip, *, finished: Finished, num_attempts: int, seconds: dict[str, float]) -> None: ...

    def fail(self, clip: Clip, *, failures: Sequence[ClipFailure]) -> None: ...


@dataclass
class StopSignal:
    """How often the run was asked to stop; a signal handler counts it up, or whoever looks on."""

    count: int = 0
    reason: str = "a signal"
    grace_s: float | None = None  # for what is in flight; None: the cluster's


@dataclass(frozen=True, kw_only=True)
class Oversight:
    """Whoever looks on at a run, and may end it."""

    stop: StopSignal = field(default_factory=StopSignal)
    wish: Callable[[], Wish] = Wish  # what was asked of the run through its output; asked for often, answered at once
    observe: Callable[[Snapshot], None] = lambda snapshot: None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the loop ended: `stopped` says why it left work, `exit_code` which kind of reason that was."""

    board: Board
    stopped: str | None
    exit_code: int | None  # None: nothing stopped it


@dataclass
class _Crew:
    stage: Stage
    ready: bool = False
    gone: bool = False  # at its cap, or not worth starting again
    order: Order | None = None


class Driver:
    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        fleet: Fleet,
        recorder: Recorder,
        cluster: ClusterSettings,
        retry: RetrySettings,
        signal: StopSignal | None = None,
        observe: Callable[[Snapshot], None] = lambda snapshot: None,
        clock: Callable[[], float] = time.monotonic,
        new_attempt: Callable[[], str] = lambda: secrets.token_hex(4),
    ) -> None:
        self.board = Board(clips)
        self.conditions = Conditions(clips, max_kept=cluster.max_kept_conditions)
        self.streaks = Streaks(retry)
        self.fleet, self.recorder, self.retry, self.cluster = fleet, recorder, retry, cluster
        self.signal = signal or StopSignal()
        self.observe, self.clock = observe, clock
        self.offers = Offers(self.board, self.conditions, cluster=cluster, new_attempt=new_attempt)
        self.crews: dict[str, _Crew] = {}
        self.finished: list[tuple[Track, Finished]] = []  # answered in this turn, recorded at its end
        self.costs = {clip.clip_id: clip_cost(clip) for clip in clips}
        self.cost = sum(self.costs.values())
        self.cost_done = 0.0
        self.started_at = clock()
        self.working_since: float | None = None
        self.stopped: str | None = None
        self.exit_code: int | None = None
        self.stop_at: float | None = None  # when the grace time ends; None while nothing stops the run

    def run(self) -> Outcome:
        """Until every clip is SUCCEEDED or FAILED, or something stopped the run. Always ends the fleet's crews."""
        try:
            for crew_id, stage in self.fleet.crews().items():
                self.crews[crew_id] = _Crew(stage)
                self.fleet.start(crew_id)
            while not self._is_over():
                self._offer()
                for event in self.fleet.wait(POLL_S):
                    self._handle(event)
                self._offer()  # before anything is written: a group does not wait for storage
                self._record_finished()
                self._obey_signal()
                self._tell()
        finally:
            self.fleet.close()
        return Outcome(board=self.board, stopped=self.stopped, exit_code=self.exit_code)

    def _offer(self) -> None:
        crews = {stage: sum(c.stage == stage and not c.gone for c in self.crews.values()) for stage in STAGES}
        for crew_id, crew in self.crews.items():
            if crew.ready and crew.order is None:
                crew.order = self.offers.next_order(crew.stage, crews=crews, stopping=self.stop_at is not None)
                if crew.order is not None:
                    self.fleet.offer(crew_id, crew.order)

    # What came of it.

    def _handle(self, event: Event) -> None:
        if isinstance(event, Joined):
            self.crews[event.crew_id] = _Crew(event.stage)
            self.fleet.start(event.crew_id)
            return
        crew = self.crews[event.crew_id]
        if isinstance(event, Done) and _is_late(event, crew.order):
            log.warning("%s answered too late, its answer is void", event.crew_id)
            return
        order, crew.order = crew.order, None
        if isinstance(event, Ready):
            crew.ready, crew.order = True, order
            if crew.stage == "render" and self.working_since is None:
                self.working_since = self.clock()
            log.info("%s is ready", event.crew_id)
        elif isinstance(event, Done):
            self.streaks.worked(event.crew_id)
            self._advance(event, order)
        elif isinstance(event, Refused):
            self.streaks.worked(event.crew_id)  # it answered: nothing is wrong with the crew
            self._fail_order(order, event.failure)
        else:
            self._lose(event, crew, order)

    def _advance(self, event: Done, order: Order | None) -> None:
        if isinstance(order, EncodeOrder):
            self.conditions.made(order.condition, event.result, seconds=event.seconds)
        elif isinstance(order, RenderOrder):
            track = self.board.tracks[order.clip.clip_id]
            track.latents = event.result
            track.seconds = {"condition": self.conditions.seconds(track.clip), "render": event.seconds}
            self.board.move(track, Place.RENDERED)
            self.cost_done += self.costs[order.clip.clip_id]
        elif isinstance(order, FinishOrder) and isinstance(event.result, Finished):
            self.finished.append((self.board.tracks[order.clip.clip_id], event.result))
        else:
            raise AssertionError(f"{event.crew_id} answered {event.result!r} to {order!r}")

    def _lose(self, event: Lost, crew: _Crew, order: Order | None) -> None:
        crew.ready = False
        log.warning("lost %s: %s", event.crew_id, event.reason)
        again = self.streaks.lost(event.crew_id, _suspect(order))
        if order is not None:
            kind = "GroupLost" if crew.stage == "render" else "CrewLost"
            message = f"{event.crew_id}: {event.reason}"
            self._fail_order(order, ClipFailure(stage=crew.stage, kind=kind, message=message, retriable=True))
        if event.fatal is not None:
            crew.gone = True
            self._stop(event.reason, FATAL[event.fatal], grace_s=0)
        elif not again:
            crew.gone = True
            log.error("%s is not started again: it was lost too often in a row", event.crew_id)
            self._check_stage(crew.stage, event)
        elif self.stop_at is None or crew.stage == "finish":
            self.fleet.start(event.crew_id)

    def _check_stage(self, stage: Stage, event: Lost) -> None:
        if all(crew.gone for crew in self.crews.values() if crew.stage == stage):
            grace_s = 0 if stage == "finish" else self.cluster.stop_grace_s
            reason = f"no {STAGES[stage]} is left that works; the last, {event.crew_id}: {event.reason}"
            self._stop(reason, ENVIRONMENT, grace_s=grace_s)

    def _fail_order(self, order: Order | None, failure: ClipFailure) -> None:
        if isinstance(order, EncodeOrder):
            self.conditions.not_made(order.condition)
            pending = [track.clip for track in self.board.in_place(Place.PENDING)]
            for clip in users_of(order.condition, pending):
                self._judge(self.board.tracks[clip.clip_id], failure)
        elif order is not None:
            self._judge(self.board.tracks[order.clip.clip_id], failure)

    def _judge(self, track: Track, failure: ClipFailure) -> None:
        """Counts a failure and sends the clip where it belongs now."""
        track.failures.append(failure)
        verdict = judge(track.failures, self.retry)
        if verdict is Verdict.STOP:
            self._stop(f"clip {track.clip.clip_id}: {failure.message}", FATAL[failure.kind], grace_s=0)
        if verdict is Verdict.FAIL:
            self._give_up(track)
        elif track.place is Place.RENDERING:
            if failure.kind == CONDITIONS_LOST:
                self.conditions.forget(track.clip)
            self.board.move(track, Place.PENDING, behind=places_behind(self.retry))
        elif track.place is Place.FINISHING and failure.kind == LATENTS_LOST:
            self.cost_done -= self.costs[track.clip.clip_id]
            self.board.move(track, Place.PENDING)
        elif track.place is Place.FINISHING:
            self.board.move(track, Place.RENDERED)

    def _give_up(self, track: Track) -> None:
        log.error("clip %s failed: %s", track.clip.clip_id, track.failures[-1].message)
        if track.place in (Place.PENDING, Place.RENDERING):
            self.cost_done += self.costs[track.clip.clip_id]  # nothing is left to do for it
        self.conditions.release(track.clip)
        self.board.move(track, Place.FAILED)
        try:
            self.recorder.fail(track.clip, failures=track.failures)
        except StoreError as error:
            self._stop(str(error), ENVIRONMENT, grace_s=0)

    def _record_finished(self) -> None:
        """The record is written last, and only for the attempt that was offered last."""
        for track, finished in self.finished:
            if finished.attempt != track.attempt:
                raise AssertionError(f"attempt {finished.attempt} answered, {track.attempt} was asked for")
            try:
                self.recorder.record(
                    track.clip,
                    finished=finished,
                    num_attempts=len(track.failures) + 1,
                    seconds=track.seconds | dict(finished.seconds),
                )
            except StoreError as error:
                self._stop(str(error), ENVIRONMENT, grace_s=0)
                continue
            self.conditions.release(track.clip)
            self.board.move(track, Place.SUCCEEDED)
            log.info("clip %s is done", track.clip.clip_id)
        self.finished.clear()

    def _tell(self) -> None:
        try:
            self.observe(self._snapshot())
        except StoreError as error:
            self._stop(str(error), ENVIRONMENT, grace_s=0)

    # When it ends.

    def _is_over(self) -> bool:
        if self.board.count(Place.SUCCEEDED, Place.FAILED) == len(self.board.tracks):
            return True
        if self.stop_at is None:
            return False
        return not self.board.in_flight() or self.clock() >= self.stop_at

    def _obey_signal(self) -> None:
        if self.signal.count == 1 and self.stop_at is None:
            grace_s = self.cluster.stop_grace_s if self.signal.grace_s is None else self.signal.grace_s
            log.warning("stopping: what is in flight has %g s to finish; a second signal stops at once", grace_s)
            self._stop(f"stopped by {self.signal.reason}", STOPPED, grace_s=grace_s)
        elif self.signal.count > 1:
            self._stop(f"stopped by {self.signal.reason}", STOPPED, grace_s=0)

    def _stop(self, reason: str, exit_code: int, *, grace_s: float) -> None:
        """Starts nothing new. The first reason stays, the earliest end counts."""
        if self.stopped is None:
            self.stopped, self.exit_code = reason, exit_code
        end = self.clock() + grace_s
        self.stop_at = end if self.stop_at is None else min(self.stop_at, end)

    def _snapshot(self) -> Snapshot:
        now = self.clock()
        groups = self.fleet.groups()
        in_work = sum(
            self.costs[group.clip_id] * group.step / group.num_steps
            for group in groups
            if group.state == "busy" and group.clip_id is not None and group.num_steps
        )
        return Snapshot(
            num_clips=len(self.board.tracks),
            num_succeeded=self.board.count(Place.SUCCEEDED),
            num_failed=self.board.count(Place.FAILED),
            in_flight=self.board.in_flight(),
            cost=self.cost,
            cost_done=self.cost_done + in_work,
            working_s=now - self.working_since if self.working_since is not None else 0.0,
            elapsed_s=now - self.started_at,
            groups=groups,
            stopping=self.stopped,
        )


def _is_late(event: Done, order: Order | None) -> bool:
    """Whether it answers an order that was given up, and its clip to another attempt."""
    if isinstance(event.result, Finished):
        return not isinstance(order, FinishOrder) or order.attempt != event.result.attempt
    return order is None


def _suspect(order: Order | None) -> object:
    """What a crew's loss may be the fault of: its clip, or the condition it made."""
    if isinstance(order, EncodeOrder):
        return order.condition
    return order.clip.clip_id if order is not None else None
