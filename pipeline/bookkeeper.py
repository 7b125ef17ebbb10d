"""What becomes of each clip: moved on the board as orders succeed or fail, recorded, given up, logged, counted.

What a failure costs is `policy`'s to decide; that the run has to stop is said to whoever drives it.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from pipeline.board import Board, Place, Track
from pipeline.conditions import Conditions, users_of
from pipeline.diary import Diary
from pipeline.errors import StoreError
from pipeline.fleet import (
    CONDITIONS_LOST,
    LATENTS_LOST,
    Done,
    EncodeOrder,
    EnlargeOrder,
    FinishOrder,
    Order,
    RenderOrder,
)
from pipeline.plan import clip_cost, draft_cost
from pipeline.policy import FATAL, FREE, Verdict, judge, places_behind, too_many_failed
from pipeline.settings import RetrySettings
from pipeline.summary import ENVIRONMENT
from pipeline.types import Clip, ClipFailure, Finished

Stop: TypeAlias = Callable[[str, int, float | None], None]  # reason, exit code, seconds of grace (None: the cluster's)
log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Makes durable what became of a clip. StoreError stops the run."""

    def record(self, clip: Clip, *, finished: Finished, num_attempts: int, seconds: dict[str, float]) -> None: ...

    def fail(self, clip: Clip, *, failures: Sequence[ClipFailure]) -> None: ...

    def log(self, clip: Clip, *, attempt: str, lines: Sequence[str]) -> None:
        """What one attempt went through. Best effort: never raises."""
        ...


class Bookkeeper:
    def __init__(
        self,
        board: Board,
        *,
        conditions: Conditions,
        recorder: Recorder,
        retry: RetrySettings,
        num_done: int,
        new_attempt: Callable[[], str],
        stop: Stop,
    ) -> None:
        self.board, self.conditions, self.recorder, self.retry = board, conditions, recorder, retry
        self.num_done, self.new_attempt, self.stop = num_done, new_attempt, stop
        self._stops = False  # whether that was said
        self.diary = Diary()
        self.finished: list[tuple[Track, Finished]] = []  # answered, and not recorded yet
        self.costs = {clip_id: clip_cost(track.clip) for clip_id, track in board.tracks.items()}
        self.cost_done = 0.0

    def offered(self, order: Order, crew_id: str, *, nodes: Sequence[str]) -> None:
        if isinstance(order, EncodeOrder):
            return
        if isinstance(order, RenderOrder):
            seconds = self.conditions.seconds(order.clip)
            self.diary.note(order.clip.clip_id, f"conditions are there, made in {seconds:.2f} s")
        where = f" on node {', '.join(node[:8] for node in nodes)}" if nodes else ""
        self.diary.note(order.clip.clip_id, f"given to {crew_id}{where}")

    def advance(self, event: Done, order: Order | None) -> None:
        """An order is carried out. What is finished is recorded later: a group does not wait for storage."""
        if isinstance(order, EncodeOrder):
            assert isinstance(event.result, tuple)
            for condition, handle in zip(order.conditions, event.result, strict=True):
                self.conditions.made(condition, handle, seconds=event.seconds / len(order.conditions))
        elif isinstance(order, RenderOrder):
            track = self.board.tracks[order.clip.clip_id]
            track.seconds = {"condition": self.conditions.seconds(track.clip), "render": event.seconds}
            self._move(track, Place.DRAFTED if order.drafts else Place.RENDERED)
            if order.drafts:
                track.draft = event.result
            else:
                track.latents = event.result
            done = "made its first stage" if order.drafts else "rendered it"
            self.diary.note(order.clip.clip_id, f"{event.crew_id} {done} in {event.seconds:.2f} s")
        elif isinstance(order, EnlargeOrder):
            track = self.board.tracks[order.clip.clip_id]
            track.latents = event.result
            track.seconds["enlarge"] = event.seconds
            self._move(track, Place.RENDERED)
            self.diary.note(order.clip.clip_id, f"{event.crew_id} enlarged it in {event.seconds:.2f} s")
        elif isinstance(order, FinishOrder) and isinstance(event.result, Finished):
            self.finished.append((self.board.tracks[order.clip.clip_id], event.result))
        else:
            raise AssertionError(f"{event.crew_id} answered {event.result!r} to {order!r}")

    def failed(self, order: Order | None, failure: ClipFailure, *, crew_id: str) -> None:
        if isinstance(order, EncodeOrder):
            for condition in order.conditions:
                self.conditions.not_made(condition, suspected=failure.kind not in FREE)
            if len(order.conditions) > 1 and failure.kind not in FATAL:
                return  # it may be the fault of any of them, each is made alone now; or of none
            waiting = [track.clip for track in self.board.in_place(Place.PENDING, Place.DRAFTED)]
            for clip in users_of(order.conditions, waiting):
                self._judge(self.board.tracks[clip.clip_id], failure)
                if self._stops:
                    break  # a prompt of all clips may fail: those beyond the run's limit are left as they are
        elif order is not None:
            track = self.board.tracks[order.clip.clip_id]
            if isinstance(order, FinishOrder):
                track.failed_in.add(crew_id)
            self._judge(track, failure)

    def _judge(self, track: Track, failure: ClipFailure) -> None:
        """Counts a failure and sends the clip where it belongs now."""
        track.failures.append(failure)
        verdict = judge(track.failures, self.retry)
        self._end_attempt(track, f"{failure.stage} failed, {verdict.name.lower()}: {failure.kind}: {failure.message}")
        if verdict is Verdict.STOP:
            self._stop(f"clip {track.clip.clip_id}: {failure.message}", FATAL[failure.kind], 0)
        if verdict is Verdict.FAIL:
            self._give_up(track)
        elif track.place in (Place.RENDERING, Place.ENLARGING, Place.FINISHING):
            if failure.kind == CONDITIONS_LOST:
                self.conditions.forget(track.clip)
            behind = 0 if failure.kind in FREE or failure.stage == "finish" else places_behind(self.retry)
            self._move(track, _back(track, failure), behind=behind)

    def _move(self, track: Track, place: Place, *, behind: int = 0) -> None:
        """And counts the work that this makes done, or undone."""
        self.cost_done -= self._done_of(track)
        self.board.move(track, place, behind=behind)
        self.cost_done += self._done_of(track)

    def _done_of(self, track: Track) -> float:
        if track.place in (Place.PENDING, Place.RENDERING):
            return 0
        if track.place in (Place.DRAFTED, Place.ENLARGING):
            return draft_cost(track.clip)
        return self.costs[track.clip.clip_id]

    def cost_of(self, order: Order | None) -> float:
        """The part of its clip's cost that a group's order is."""
        if not isinstance(order, RenderOrder | EnlargeOrder):
            return 0
        whole, first = self.costs[order.clip.clip_id], draft_cost(order.clip)
        if isinstance(order, EnlargeOrder):
            return whole - first
        return first if order.drafts else whole

    def _stop(self, reason: str, exit_code: int, grace_s: float | None) -> None:
        self._stops = True
        self.stop(reason, exit_code, grace_s)

    def _end_attempt(self, track: Track, text: str) -> None:
        clip_id = track.clip.clip_id
        self.diary.note(clip_id, text)
        self.recorder.log(track.clip, attempt=track.attempt or self.new_attempt(), lines=self.diary.end(clip_id))

    def leave(self, reason: str) -> None:
        """What is in flight when the run ends is not waited for any more: its attempts end here."""
        for clip_id in self.board.in_flight():
            self._end_attempt(self.board.tracks[clip_id], f"left unfinished: {reason}")

    def leave_drafts(self, reason: str) -> None:
        """Nobody is left who would enlarge them: they are not in flight any more."""
        for track in self.board.drafted():
            self._end_attempt(track, f"its first stage is left: {reason}")
            self._move(track, Place.PENDING)

    def _give_up(self, track: Track) -> None:
        clip_id = track.clip.clip_id
        log.error("clip %s failed: %s", clip_id, track.failures[-1].message, extra={"clip": clip_id})
        self.conditions.release(track.clip)
        self._move(track, Place.FAILED)  # nothing is left to do for it
        try:
            self.recorder.fail(track.clip, failures=track.failures)
        except StoreError as error:
            self._stop(str(error), ENVIRONMENT, 0)
        reason = too_many_failed(
            failed=self.board.count(Place.FAILED),
            succeeded=self.num_done + self.board.count(Place.SUCCEEDED),
            total=len(self.board.tracks),
            retry=self.retry,
        )
        if reason is not None:
            self._stop(f"{reason}; the last, {clip_id}: {track.failures[-1].message}", ENVIRONMENT, None)

    def record_finished(self) -> None:
        """The record is written last, and only for the attempt that was offered last."""
        for track, finished in self.finished:
            if finished.attempt != track.attempt:
                raise AssertionError(f"attempt {finished.attempt} answered, {track.attempt} was asked for")
            seconds = track.seconds | dict(finished.seconds)
            try:
                self.recorder.record(
                    track.clip, finished=finished, num_attempts=len(track.failures) + 1, seconds=seconds
                )
            except StoreError as error:
                self._stop(str(error), ENVIRONMENT, 0)
                continue
            self._end_attempt(track, ", ".join(f"{stage} {each:.2f} s" for stage, each in seconds.items()) + ": done")
            self.conditions.release(track.clip)
            self.board.move(track, Place.SUCCEEDED)
            log.info("clip %s is done", track.clip.clip_id, extra={"clip": track.clip.clip_id})
        self.finished.clear()


def _back(track: Track, failure: ClipFailure) -> Place:
    """Where a clip goes on after a failure: from what is left of it."""
    if track.place is Place.FINISHING and failure.kind != LATENTS_LOST:
        return Place.RENDERED
    is_draft_lost = track.place is Place.ENLARGING and failure.kind == LATENTS_LOST
    return Place.PENDING if track.draft is None or is_draft_lost else Place.DRAFTED
