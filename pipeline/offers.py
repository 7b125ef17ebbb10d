"""Which order comes next for an idle crew. It moves clips on the board; no clock, no fleet."""

from collections.abc import Callable, Collection, Mapping

from pipeline.board import Board, Place, Track
from pipeline.conditions import Conditions
from pipeline.fleet import EncodeOrder, EnlargeOrder, FinishOrder, Order, RenderOrder
from pipeline.settings import ClusterSettings
from pipeline.types import Clip, Stage


class Offers:
    """Conditions are made ahead as far as they may be kept; groups pause while too much waits for the next stage.

    `apart`: super-resolution has groups of its own, and render groups make drafts of the clips that go through it.
    """

    def __init__(
        self,
        board: Board,
        conditions: Conditions,
        *,
        cluster: ClusterSettings,
        apart: bool,
        new_attempt: Callable[[], str],
    ) -> None:
        self._board, self._conditions, self._cluster, self._new_attempt = board, conditions, cluster, new_attempt
        self._apart = apart

    def next_order(
        self, crew_id: str, stage: Stage, *, crews: Mapping[Stage, int], finishers: Collection[str], stopping: bool
    ) -> Order | None:
        """`crews`: how many of each stage there are; `finishers`: those that are ready.

        Once the run is stopping only clips in flight go on.
        """
        if stage == "finish":
            return self._next_finish(crew_id, finishers)
        if stage == "enlarge":
            return self._next_enlarge(crews, stopping=stopping)
        if stage == "encode":
            return self._next_encode(crews, stopping=stopping)
        return None if stopping else self._next_render(crews)

    def wanted(self, crews: Mapping[Stage, int], *, stopping: bool) -> dict[Stage, int]:
        """For how many crews of a stage there may be something to do; for all of one that is not named."""
        board = self._board
        drafted = board.count(Place.DRAFTED, Place.ENLARGING)
        if not stopping:
            drafted += board.count_large(Place.PENDING, Place.RENDERING)
            return {"render": board.count(Place.PENDING, Place.RENDERING), "enlarge": drafted}
        return {
            "encode": int(self.wants_encoder(crews, stopping=True)),
            "render": 0,
            "enlarge": drafted + board.count_large(Place.RENDERING),
            "finish": len(board.in_flight()),
        }

    def wants_encoder(self, crews: Mapping[Stage, int], *, stopping: bool) -> bool:
        """Whether a clip that comes soon waits for conditions that nobody makes."""
        return self._conditions.are_missing(self._ahead(crews, stopping=stopping))

    def _ahead(self, crews: Mapping[Stage, int], *, stopping: bool) -> list[Clip]:
        """Drafts wait for theirs first: they may have been dropped, or lost, since the first stage had them."""
        drafted = self._board.before_enlarging() if self._apart else []
        pending = [] if stopping else self._pending(crews)
        return [track.clip for track in (*drafted, *pending)]

    def _pending(self, crews: Mapping[Stage, int]) -> list[Track]:
        """The queue's head; clips that make no drafts do not wait behind those that would, once drafts are enough."""
        window = self._window(crews)
        head = list(self._board.pending(window))
        full = self._apart and self._is_enlarging_full(crews)
        return [*head, *(self._board.small_pending(window) if full else ())]

    def _window(self, crews: Mapping[Stage, int]) -> int:
        """How many clips of the queue's head have their conditions made at least."""
        return max(crews["render"], 1) * (1 + self._cluster.clips_encoded_ahead)

    def _next_encode(self, crews: Mapping[Stage, int], *, stopping: bool) -> Order | None:
        ahead = self._ahead(crews, stopping=stopping)
        if stopping and not self._conditions.are_missing(ahead):
            return None
        conditions = self._conditions.begin_next(ahead, most=self._cluster.prompts_a_batch)
        return EncodeOrder(conditions=conditions) if conditions else None

    def _next_render(self, crews: Mapping[Stage, int]) -> Order | None:
        """The first clip whose conditions are made, not strictly the first: a group does not wait for an encoder."""
        is_full = {False: self._is_finishing_full(crews), True: self._apart and self._is_enlarging_full(crews)}
        for track in self._pending(crews) if not all(is_full.values()) else ():
            drafts = self._apart and track.is_large
            handles = self._conditions.handles(track.clip) if not is_full[drafts] else None
            if handles is not None:
                self._board.move(track, Place.RENDERING)
                return RenderOrder(clip=track.clip, conditions=handles, drafts=drafts)
        return None

    def _next_enlarge(self, crews: Mapping[Stage, int], *, stopping: bool) -> Order | None:
        """A clip that cost a group before waits for others, as long as any come: that group may be what is wrong."""
        if self._is_finishing_full(crews):
            return None
        come = self._board.count_large(Place.RENDERING, *(() if stopping else (Place.PENDING,)))
        waiting = self._board.drafted()
        for track in waiting:
            handles = self._conditions.handles(track.clip) if not (track.behind and come) else None
            if handles is not None:
                draft = track.draft
                self._board.move(track, Place.ENLARGING)
                for each in waiting:
                    each.behind = max(each.behind - 1, 0)
                return EnlargeOrder(clip=track.clip, draft=draft, conditions=handles)
        return None

    def _is_finishing_full(self, crews: Mapping[Stage, int]) -> bool:
        unfinished = self._board.count(Place.RENDERED, Place.FINISHING)
        return unfinished >= self._cluster.clips_unfinished * max(crews["finish"], 1)

    def _is_enlarging_full(self, crews: Mapping[Stage, int]) -> bool:
        """Those that wait for others to come do not keep them from coming."""
        drafted = self._board.count(Place.ENLARGING) + sum(not track.behind for track in self._board.drafted())
        return drafted >= self._cluster.clips_drafted * max(crews["enlarge"], 1)

    def _next_finish(self, crew_id: str, finishers: Collection[str]) -> Order | None:
        track: Track | None = self._board.first_rendered(finisher=crew_id, others=finishers)
        if track is None:
            return None
        latents, attempt = track.latents, self._new_attempt()
        self._board.move(track, Place.FINISHING)
        track.attempt = attempt
        return FinishOrder(clip=track.clip, attempt=attempt, latents=latents)
