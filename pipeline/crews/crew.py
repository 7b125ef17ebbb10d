"""A crew in Ray: actors, calls in the air and a deadline; at the first sign of loss no more is heard of any of them.

Nothing here blocks: every call is a reference that `cluster.RayFleet` waits for, every wait has an end.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import ray
from ray.exceptions import ObjectLostError, RayError

from pipeline.crews.deadlines import Attention
from pipeline.crews.losses import fatal_of, has_cause, kind_of, reason_of
from pipeline.crews.nodes import Nodes, NodeWatch, Resources, look, node_of
from pipeline.crews.placements import Names
from pipeline.fleet import (
    CONDITIONS_LOST,
    LATENTS_LOST,
    Done,
    Event,
    Gpu,
    LossKind,
    Lost,
    Order,
    Ready,
    Refused,
)
from pipeline.room import Crews
from pipeline.settings import ClusterSettings
from pipeline.types import Clip, ClipFailure, Stage
from pipeline.worker import Seat, Verdict, Workplace

Ref: TypeAlias = Any  # an ObjectRef, or a ClientObjectRef where the cluster is reached through ray://
GET_S = 10.0  # to fetch an answer of a few hundred bytes that is there already
LOADING = "loading and warming up"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """What all crews of a fleet share."""

    place: Workplace
    cluster: ClusterSettings
    names: Names
    watch: NodeWatch
    clock: Attention


@dataclasses.dataclass(frozen=True)
class Call:
    """Something asked of the actor of that rank, and what to do with its answer."""

    rank: int
    then: Callable[[Any], Event | None]


class Crew(ABC):
    """What encoders, finishers and groups have in common. `start` and `offer` come with the kind."""

    stage: Stage
    bundle: Resources  # of one actor

    def __init__(self, crew_id: str, *, site: Site) -> None:
        self.crew_id, self.site = crew_id, site
        self.place, self.cluster, self.clock = site.place, site.cluster, site.clock
        self.actors: dict[int, Any] = {}  # by rank
        self.seats: dict[int, Seat] = {}  # of actors that have said where they are
        self.calls: dict[Ref, Call] = {}
        self.result: Ref | tuple[Ref, ...] = None  # of what the order makes
        self.busy = False
        self._waits_for, self._since_s, self._limit_s = "", 0.0, 0.0

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def offer(self, order: Order) -> None: ...

    def wants(self) -> Crews:
        """One such crew, for those who count what there is room for."""
        return Crews(kind=self.crew_id, cpus=int(self.bundle["CPU"]), cards=int(self.bundle.get("GPU", 0)))

    def refs(self) -> list[Ref]:
        return list(self.calls)

    def poll(self) -> None:  # noqa: B027  # most have nothing to ask
        """A chance to ask the actors something, once a turn."""

    # Asking, and waiting for answers.

    def ask(self, calls: Mapping[int, Ref], then: Callable[[dict[int, Any]], Event | None]) -> None:
        """`then` is called with the answers, by rank, when all of them are there."""
        answers: dict[int, Any] = {}

        def gather(rank: int, answer: Any) -> Event | None:
            answers[rank] = answer
            return then(answers) if len(answers) == len(calls) else None

        for rank, ref in calls.items():
            self.calls[ref] = Call(rank, partial(gather, rank))

    def collect(self, ref: Ref) -> Event | None:
        """Takes an answer that has arrived. None: it was one of several that are needed."""
        call = self.calls.pop(ref, None)
        if call is None:
            return None  # the crew it was asked of has been killed since
        try:
            answer = ray.get(ref, timeout=GET_S)
        except RayError as error:
            if has_cause(error, ObjectLostError):
                return self.inputs_lost(call.rank, error)
            return self.broke(call.rank, error)
        return call.then(answer)

    def wait_for(self, what: str, limit_s: float) -> None:
        """Sets the deadline; 0: there is none."""
        self._waits_for, self._since_s, self._limit_s = what, self.clock.now, limit_s

    def is_late(self) -> bool:
        return self._limit_s > 0 and self.clock.now - self._since_s > self._limit_s

    def check(self) -> Event | None:
        """What only the clock can tell."""
        if not self.is_late():
            return None
        what = f"{self._waits_for} took more than {self._limit_s:g} s"
        if not self.seats and self.is_unplaced():
            return self.lose(f"{what}: {self.room()}", kind="unplaced")
        return self.hung(what)

    @abstractmethod
    def is_unplaced(self) -> bool:
        """Whether it still waits for room."""

    @abstractmethod
    def room(self) -> str:
        """What it wants of the cluster and what is there."""

    def culprits(self) -> list[int]:
        """Ranks that a missed deadline is the fault of. None: they wait for each other."""
        return list(self.actors)

    def blame(self, culprits: list[int]) -> str:
        return ", ".join(map(self.told, culprits))

    # How it ends.

    def broke(self, rank: int, error: RayError) -> Event | None:
        """A call ended with an error: of all that happens to actors the first sign."""
        lost = self.judged(rank, error)
        self.kill()
        return lost

    def judged(self, rank: int, error: RayError) -> Lost:
        node = self.node_of(rank)
        return Lost(
            crew_id=self.crew_id,
            reason=f"{self.told(rank)}: {reason_of(error)}",
            kind=kind_of(error, node=node, nodes=look()),
            node=node,
            gpu=self.gpu_of(rank),
            fatal=fatal_of(error),
        )

    def hung(self, what: str) -> Event:
        culprits = self.culprits()
        node = self.node_of(culprits[0]) if culprits else None
        gpu = self.gpu_of(culprits[0]) if culprits else None
        gone = node is not None and node not in look().staying
        return self.lose(f"{what}; {self.blame(culprits)}", kind="preempted" if gone else "hung", node=node, gpu=gpu)

    def preempted(self, nodes: Nodes) -> Lost | None:
        """Where a node of its is gone, or drains while it has no order."""
        for seat in list(self.seats.values()) if self.is_up() else ():
            if seat.node not in nodes.alive:
                return self.lose(f"{seat}: the node is gone", kind="preempted", node=seat.node)
            if seat.node in nodes.draining and not self.busy:
                return self.lose(f"{seat}: the node drains", kind="preempted", node=seat.node)
        return None

    def lose(self, reason: str, *, kind: LossKind = "died", node: str | None = None, gpu: Gpu | None = None) -> Lost:
        """Removes all that is left of the crew, then says so."""
        self.kill()
        return Lost(crew_id=self.crew_id, reason=reason, kind=kind, node=node, gpu=gpu)

    def forget(self) -> None:
        """The order and all that was asked, but no actor."""
        self.result, self._limit_s, self.busy = None, 0.0, False
        self.calls.clear()

    def kill(self) -> None:
        for actor in self.actors.values():
            ray.kill(actor, no_restart=True)
        self.forget()
        self.actors = {}
        self.seats.clear()

    def is_up(self) -> bool:
        """Whether it is started and not lost."""
        return bool(self.actors)

    def node_of(self, rank: int) -> str | None:
        return self.seats[rank].node if rank in self.seats else node_of(self.actors[rank])

    def gpus(self) -> tuple[Gpu, ...]:
        return tuple(card for seat in self.seats.values() for card in seat.cards)

    def gpu_of(self, rank: int) -> Gpu | None:
        """The first, of several: which one it was is not known."""
        return next(iter(self.seats[rank].cards), None) if rank in self.seats else None

    def told(self, rank: int) -> str:
        """Which actor, and where it is, for a reason."""
        return f"on {self.seats[rank]}" if rank in self.seats else f"on node {(self.node_of(rank) or '?')[:8]}"

    # What came of it.

    def began(self) -> Event:
        self.wait_for("", 0.0)
        nodes = tuple(dict.fromkeys(seat.node for seat in self.seats.values()))
        return Ready(crew_id=self.crew_id, nodes=nodes, gpus=self.gpus())

    def answered(self, verdict: Verdict) -> Event:
        """`verdict` is what the order took, the result's reference was ours from the start."""
        result, self.result, self.busy = self.result, None, False
        self.wait_for("", 0.0)
        if isinstance(verdict, ClipFailure):
            return Refused(crew_id=self.crew_id, failure=verdict)
        return Done(crew_id=self.crew_id, result=result, seconds=verdict)

    def inputs_lost(self, rank: int, error: RayError) -> Event | None:
        """What the order was to be made of is gone; the actors never saw it and are well."""
        kind = LATENTS_LOST if self.stage == "finish" else CONDITIONS_LOST
        return self.answered(ClipFailure(stage=self.stage, kind=kind, message=reason_of(error), retriable=True))


def light(clip: Clip, *, keeps_sound: bool = False) -> Clip:
    """Without the image's and, unless it is delivered, the given sound's bytes: who renders has no use for them."""
    return dataclasses.replace(clip, image=None, audio_in=clip.audio_in if keeps_sound else None)
