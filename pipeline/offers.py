"""Which order comes next for an idle crew. It moves clips on the board; no clock, no fleet."""

from collections.abc import Callable, Collection, Mapping

from pipeline.board import Board, Place, Track
from pipeline.conditions import Conditions
from pipeline.fleet import EncodeOrder, FinishOrder, Order, RenderOrder
from pipeline.settings import ClusterSettings
from pipeline.types import Clip, Stage


class Offers:
    """Conditions are made ahead as far as they may be kept; groups pause while too many latents wait for a finisher."""

    def __init__(
        self, board: Board, conditions: Conditions, *, cluster: ClusterSettings, new_attempt: Callable[[], str]
    ) -> None:
        self._board, self._conditions, self._cluster, self._new_attempt = board, conditions, cluster, new_attempt

    def next_order(
        self, crew_id: str, stage: Stage, *, crews: Mapping[Stage, int], finishers: Collection[str], stopping: bool
    ) -> Order | None:
        """`crews`: how many of each stage there are; `finishers`: those that are ready.

        Once the run is stopping only rendered clips are finished.
        """
        if stage == "finish":
            return self._next_finish(crew_id, finishers)
        if stopping:
            return None
        return self._next_encode(crews) if stage == "encode" else self._next_render(crews)

    def wants_encoder(self, crews: Mapping[Stage, int]) -> bool:
        """Whether a clip that comes soon waits for conditions that nobody makes."""
        return self._conditions.are_missing(self._ahead(crews))

    def _ahead(self, crews: Mapping[Stage, int]) -> list[Clip]:
        return [track.clip for track in self._board.pending(self._window(crews))]

    def _window(self, crews: Mapping[Stage, int]) -> int:
        """How many clips of the queue's head have their conditions made at least."""
        return max(crews["render"], 1) * (1 + self._cluster.clips_encoded_ahead)

    def _next_encode(self, crews: Mapping[Stage, int]) -> Order | None:
        conditions = self._conditions.begin_next(self._ahead(crews), most=self._cluster.prompts_a_batch)
        return EncodeOrder(conditions=conditions) if conditions else None

    def _next_render(self, crews: Mapping[Stage, int]) -> Order | None:
        """The first clip whose conditions are made, not strictly the first: a group does not wait for an encoder."""
        unfinished = self._board.count(Place.RENDERED, Place.FINISHING)
        if unfinished >= self._cluster.clips_unfinished * max(crews["finish"], 1):
            return None
        for track in self._board.pending(self._window(crews)):
            handles = self._conditions.handles(track.clip)
            if handles is not None:
                self._board.move(track, Place.RENDERING)
                return RenderOrder(clip=track.clip, conditions=handles)
        return None

    def _next_finish(self, crew_id: str, finishers: Collection[str]) -> Order | None:
        track: Track | None = self._board.first_rendered(finisher=crew_id, others=finishers)
        if track is None:
            return None
        latents, attempt = track.latents, self._new_attempt()
        self._board.move(track, Place.FINISHING)
        track.attempt = attempt
        return FinishOrder(clip=track.clip, attempt=attempt, latents=latents)
