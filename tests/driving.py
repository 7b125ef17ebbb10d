"""Runs a driver over a fleet in this process, and looks at what became of it."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.board import Place
from pipeline.driver import Driver, Outcome, Oversight, StopSignal
from pipeline.fleet import Condition, EncodeOrder
from pipeline.settings import ClusterSettings, RetrySettings
from pipeline.summary import Snapshot
from pipeline.types import Clip, Wish
from tests.fakes import FakeFleet, MemoryRecorder

CLUSTER = ClusterSettings(stop_grace_s=100)
RETRY = RetrySettings()
MOST_TURNS = 5_000  # of the loop: a run that has not ended by then never will


def drive(
    clips: Sequence[Clip],
    fleet: FakeFleet,
    recorder: MemoryRecorder | None = None,
    *,
    signal: StopSignal | None = None,
    observe: Callable[[Snapshot], None] = lambda snapshot: None,
    cluster: ClusterSettings = CLUSTER,
    retry: RetrySettings = RETRY,
    wish: Callable[[], Wish] = Wish,
    num_done: int = 0,
) -> Outcome:
    turns = Counter[str]()

    def watch(snapshot: Snapshot) -> None:
        turns["all"] += 1
        assert turns["all"] < MOST_TURNS, "the run does not end"
        observe(snapshot)

    outcome = Driver(
        clips,
        fleet=fleet,
        recorder=recorder if recorder is not None else MemoryRecorder(),
        cluster=cluster,
        retry=retry,
        oversight=Oversight(stop=signal or StopSignal(), wish=wish, observe=watch),
        num_done=num_done,
        clock=fleet.clock,
    ).run()
    assert fleet.closed
    return outcome


def places(outcome: Outcome) -> dict[str, Place]:
    return {clip_id: track.place for clip_id, track in outcome.board.tracks.items()}


def orders(fleet: FakeFleet, kind: type[Any]) -> list[Any]:
    return [order for _, order in fleet.offers if isinstance(order, kind)]


def embedded(fleet: FakeFleet) -> list[Condition]:
    """Every condition that was given to an encoder, in that order."""
    return [each for order in orders(fleet, EncodeOrder) for each in order.conditions]


def asked_at(fleet: FakeFleet, **wishes: tuple[float, float]) -> Callable[[], Wish]:
    """Kinds of wish, each for a span of the fleet's time."""

    def wish() -> Wish:
        for kind, (begin, end) in wishes.items():
            if begin <= fleet.now_s < end:
                return Wish(kind="pause" if kind == "pause" else "cancel", said="by somebody")
        return Wish()

    return wish
