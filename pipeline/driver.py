"""The loop of a run: offer clips to crews, collect what came of it, judge failures, record what is finished.

It talks to Protocols only and never touches pixels: latents and embeddings pass by as handles. What to do about a
failure is `policy`'s to decide, where each clip is `board`'s to know, which crews work `roster`'s.
"""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.board import Board, Place
from pipeline.bookkeeper import Bookkeeper, Recorder
from pipeline.conditions import Conditions
from pipeline.errors import StoreError
from pipeline.fleet import (
    PREEMPTED,
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
)
from pipeline.offers import Offers
from pipeline.policy import FATAL, is_odd
from pipeline.roster import Member, Roster
from pipeline.settings import ClusterSettings, RetrySettings
from pipeline.summary import ENVIRONMENT, STOPPED, Snapshot
from pipeline.types import Clip, ClipFailure, Finished, Stage, Wish

POLL_S = 0.25  # how late a signal may be noticed
STAGES: dict[Stage, str] = {
    "encode": "prompt encoder",
    "render": "render group",
    "enlarge": "enlarging group",
    "finish": "finisher",
}
log = logging.getLogger(__name__)


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
    canceled: bool = False  # what is left was not wanted any more


class Driver:
    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        fleet: Fleet,
        recorder: Recorder,
        cluster: ClusterSettings,
        retry: RetrySettings,
        num_done: int = 0,
        oversight: Oversight | None = None,
        clock: Callable[[], float] = time.monotonic,
        new_attempt: Callable[[], str] = lambda: secrets.token_hex(4),
    ) -> None:
        """`num_done`: clips of the manifest that earlier runs have finished."""
        self.board = Board(clips)
        self.conditions = Conditions(clips, max_kept=cluster.max_kept_conditions)
        self.roster = Roster(fleet, retry=retry, clock=clock)
        self.books = Bookkeeper(
            self.board,
            conditions=self.conditions,
            recorder=recorder,
            retry=retry,
            num_done=num_done,
            new_attempt=new_attempt,
            stop=self._stop,
        )
        apart = "enlarge" in fleet.crews().values()
        self.offers = Offers(self.board, self.conditions, cluster=cluster, apart=apart, new_attempt=new_attempt)
        self.last_lost: dict[Stage, Lost] = {}  # of those that are not started again
        self.fleet, self.cluster, self.clock = fleet, cluster, clock
        self.oversight = oversight or Oversight()
        self.started_at = clock()
        self.working_since: float | None = None
        self.resting_since: float | None = None  # with nothing in flight, while the run is paused
        self.paused: str | None = None  # who asked for it
        self.canceled = False
        self.was_asked = False  # to stop; a run that stops already may have less time from then on
        self.stopped: str | None = None
        self.exit_code: int | None = None
        self.stop_at: float | None = None  # when the grace time ends; None while nothing stops the run

    def run(self) -> Outcome:
        """Until every clip is SUCCEEDED or FAILED, or something stopped the run. Always ends the fleet's crews."""
        try:
            while not self._is_over():
                self._offer()
                for event in self.fleet.wait(POLL_S):
                    self._handle(event)
                self._offer()  # before anything is written: a group does not wait for storage
                self.books.record_finished()
                self._obey_signal()
                self._obey_wish()
                self._mind_encoders()
                self._mind_stages()
                self.roster.avoid_blocked()
                self._tell()
        finally:
            self.fleet.close()
        self.books.leave(self.stopped or "the run ended")
        return Outcome(board=self.board, stopped=self.stopped, exit_code=self.exit_code, canceled=self.canceled)

    def _offer(self) -> None:
        stopping = self._is_stopping()
        self.roster.fill(self.offers.wanted(self.roster.counts(), stopping=stopping))
        crews, finishers = self.roster.counts(), self.roster.ready_finishers()
        for crew_id, member in self.roster.idle():
            member.order = self.offers.next_order(
                crew_id, member.stage, crews=crews, finishers=finishers, stopping=stopping
            )
            if member.order is not None:
                self.books.offered(member.order, crew_id, nodes=member.nodes)
                self.fleet.offer(crew_id, member.order)

    def _is_stopping(self) -> bool:
        """Whether only what is in flight goes on."""
        return self.stop_at is not None or self.paused is not None

    # What came of it.

    def _handle(self, event: Event) -> None:
        if isinstance(event, Joined):
            if self.stop_at is not None:
                return  # there is nothing for it to do
            log.info("%s fits since a node joined", event.crew_id, extra={"group": event.crew_id})
            self.roster.joined(event)
            return
        member = self.roster.members[event.crew_id]
        if isinstance(event, Ready):
            self.roster.ready(event)
            if member.stage == "render" and self.working_since is None:
                self.working_since = self.clock()
            log.info("%s is ready", event.crew_id, extra={"group": event.crew_id})
            return
        if isinstance(event, Done) and _is_late(event, member.order):
            log.warning("%s answered too late, its answer is void", event.crew_id, extra={"group": event.crew_id})
            return
        order, member.order = member.order, None
        if isinstance(event, Lost):
            self._lose(event, member.stage, order)
            return
        if isinstance(event, Refused) and is_odd(event.failure):
            self._doubt(event, member, order)
            return
        self.roster.worked(event.crew_id)
        if isinstance(event, Done):
            self.books.advance(event, order)
        else:
            self.books.failed(order, event.failure, crew_id=event.crew_id)

    def _doubt(self, event: Refused, member: Member, order: Order | None) -> None:
        """It failed oddly: what is wrong may be in its process or on its node, so it is as good as lost."""
        self.fleet.release(event.crew_id)
        node = member.nodes[0] if member.nodes else None
        lost = Lost(crew_id=event.crew_id, reason=event.failure.message, node=node)
        self._lose(lost, member.stage, order, failure=event.failure)

    def _lose(self, event: Lost, stage: Stage, order: Order | None, *, failure: ClipFailure | None = None) -> None:
        """`failure`: of its order, where it is more than the loss."""
        clip_id = None if order is None or isinstance(order, EncodeOrder) else order.clip.clip_id
        told = {"group": event.crew_id, "clip": clip_id}
        log.warning("lost %s (%s): %s", event.crew_id, event.kind, event.reason, extra=told)
        again = self.roster.lost(event, _suspect(order))
        if order is not None:
            self.books.failed(order, failure or _failure(event, stage), crew_id=event.crew_id)
        if event.fatal is not None:
            self.roster.give_up(event.crew_id)
            self._stop(event.reason, FATAL[event.fatal], 0)
        elif not again:
            self.roster.give_up(event.crew_id)
            log.error("%s is not started again: it was lost too often in a row", event.crew_id, extra=told)
            self.last_lost[stage] = event

    def _mind_stages(self) -> None:
        """The run ends where clips need a stage that nobody is left for."""
        counts = self.roster.counts()
        needed = self.offers.wanted(counts, stopping=False)
        for stage, event in self.last_lost.items():
            if not counts[stage] and needed.get(stage, True):
                reason = f"no {STAGES[stage]} is left that works; the last, {event.crew_id}: {event.reason}"
                self._stop(reason, ENVIRONMENT, 0 if stage == "finish" else self.cluster.stop_grace_s)
                if stage == "enlarge":
                    self.books.leave_drafts(reason)

    def _mind_encoders(self) -> None:
        """Their memory is given back once all is made; they come back when something of it was lost."""
        stopping = self._is_stopping()
        if self.roster.are_home("encode") and self.offers.wants_encoder(self.roster.counts(), stopping=stopping):
            self.roster.call_back("encode")
        elif self.conditions.are_complete() and not stopping:
            self.roster.send_home("encode")

    def _tell(self) -> None:
        try:
            self.oversight.observe(self._snapshot())
        except StoreError as error:
            self._stop(str(error), ENVIRONMENT, 0)

    # When it ends, or stands still.

    def _is_over(self) -> bool:
        if self.board.count(Place.SUCCEEDED, Place.FAILED) == len(self.board.tracks):
            return True
        if self.stop_at is None:
            return False
        return not self.board.in_flight() or self.clock() >= self.stop_at

    def _obey_signal(self) -> None:
        signal = self.oversight.stop
        if signal.count == 1 and not self.was_asked:
            self.was_asked = True
            grace_s = self.cluster.stop_grace_s if signal.grace_s is None else signal.grace_s
            log.warning("stopping: what is in flight has %g s to finish; a second signal stops at once", grace_s)
            self._stop(f"stopped by {signal.reason}", STOPPED, grace_s)
        elif signal.count > 1:
            self._stop(f"stopped by {signal.reason}", STOPPED, 0)

    def _obey_wish(self) -> None:
        wish = self.oversight.wish()
        if wish.kind == "cancel" and not self.canceled:
            log.warning("canceled %s: what is in flight has %g s to finish", wish.said, self.cluster.stop_grace_s)
            self.canceled = True
            self._stop(f"canceled {wish.said}", STOPPED)
        elif wish.kind == "pause" and self.paused is None and self.stop_at is None:
            log.warning("paused %s: nothing new is started", wish.said)
            self.paused = wish.said
        elif wish.kind == "go on" and self.paused is not None:
            log.info("resumed")
            self._work_again()
        if self.paused is not None and not self.board.in_flight():
            self.roster.rest()
            if self.resting_since is None:
                self.resting_since = self.clock()

    def _work_again(self) -> None:
        """After a pause, which does not count as work."""
        self.paused = None
        if self.resting_since is not None and self.working_since is not None:
            self.working_since += self.clock() - self.resting_since
        self.resting_since = None

    def _working_s(self, now: float) -> float:
        """Since the first group was ready; 0 before."""
        until = now if self.resting_since is None else self.resting_since
        return until - self.working_since if self.working_since is not None else 0.0

    def _stop(self, reason: str, exit_code: int, grace_s: float | None = None) -> None:
        """Starts nothing new. The first reason stays, the earliest end counts. `grace_s` None: the cluster's."""
        if self.stopped is None:
            self.stopped, self.exit_code = reason, exit_code
        end = self.clock() + (self.cluster.stop_grace_s if grace_s is None else grace_s)
        self.stop_at = end if self.stop_at is None else min(self.stop_at, end)

    def _snapshot(self) -> Snapshot:
        now = self.clock()
        groups = tuple(group for group in self.fleet.groups() if not self.roster.rests(group.group_id))
        in_work = sum(
            self.books.cost_of(self.roster.members[group.group_id].order) * group.step / group.num_steps
            for group in groups
            if group.state == "busy" and group.num_steps
        )
        return Snapshot(
            num_clips=len(self.board.tracks),
            num_succeeded=self.board.count(Place.SUCCEEDED),
            num_failed=self.board.count(Place.FAILED),
            in_flight=self.board.in_flight(),
            cost=sum(self.books.costs.values()),
            cost_done=self.books.cost_done + in_work,
            working_s=self._working_s(now),
            elapsed_s=now - self.started_at,
            groups=groups,
            stopping=self.stopped,
            paused=self.paused,
        )


def _failure(event: Lost, stage: Stage) -> ClipFailure:
    """What the loss of a crew is to the order that it had."""
    kind = "GroupLost" if stage in ("render", "enlarge") else "CrewLost"
    kind = PREEMPTED if event.kind == "preempted" else kind
    return ClipFailure(stage=stage, kind=kind, message=f"{event.crew_id}: {event.reason}", retriable=True)


def _is_late(event: Done, order: Order | None) -> bool:
    """Whether it answers an order that was given up, and its clip to another attempt."""
    if isinstance(event.result, Finished):
        return not isinstance(order, FinishOrder) or order.attempt != event.result.attempt
    return order is None


def _suspect(order: Order | None) -> object:
    """What a crew's loss may be the fault of: its clip, or the first condition it made."""
    if isinstance(order, EncodeOrder):
        return order.conditions[0]
    return order.clip.clip_id if order is not None else None
