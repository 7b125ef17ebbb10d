"""A crew in Ray: actors, calls in the air and a deadline; at the first sign of loss killed whole.

Nothing here blocks: every call is a reference that `cluster.RayFleet` waits for, every wait has an end.
"""

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import ray
from ray.exceptions import ActorDiedError, ObjectLostError, RayActorError, RayError, RayTaskError

from pipeline.errors import ConfigError, StoreError, WeightsError
from pipeline.fleet import (
    CONDITIONS_LOST,
    LATENTS_LOST,
    Done,
    EncodeOrder,
    Event,
    FinishOrder,
    Lost,
    Order,
    Ready,
    Refused,
)
from pipeline.settings import ClusterSettings
from pipeline.types import Clip, ClipFailure, Finished, Stage
from pipeline.worker import Finisher, PromptEncoder, Verdict, Workplace

Ref: TypeAlias = Any  # an ObjectRef, or a ClientObjectRef where the cluster is reached through ray://
FATAL = (ConfigError, WeightsError, StoreError)  # another start would end the same way
GET_S = 10.0  # to fetch an answer of a few hundred bytes that is there already
REASON_CHARS = 1500


class Crew(ABC):
    """What encoders, finishers and groups have in common. `start` and `offer` come with the kind."""

    stage: Stage

    def __init__(self, crew_id: str, *, place: Workplace, cluster: ClusterSettings) -> None:
        self.crew_id, self.place, self.cluster = crew_id, place, cluster
        self.actors: list[Any] = []
        self.calls: dict[Ref, Callable[[Any], Event | None]] = {}  # what to do with each answer
        self.result: Ref = None  # of what the order makes
        self._waits_for, self._since_s, self._limit_s = "", 0.0, 0.0

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def offer(self, order: Order) -> None: ...

    def refs(self) -> list[Ref]:
        return list(self.calls)

    def poll(self) -> None:  # noqa: B027  # most have nothing to ask
        """A chance to ask the actors something, once a turn."""

    def collect(self, ref: Ref) -> Event | None:
        """Takes an answer that has arrived. None: it was one of several that are needed."""
        then = self.calls.pop(ref, None)
        if then is None:
            return None  # the crew it was asked of has been killed since
        try:
            answer = ray.get(ref, timeout=GET_S)
        except RayError as error:
            if _cause(error, ObjectLostError):
                return self.inputs_lost(error)
            return self.lose(reason_of(error), fatal=next((k.__name__ for k in FATAL if _cause(error, k)), None))
        return then(answer)

    def check(self) -> Event | None:
        """What only the clock can tell."""
        if self._limit_s and time.monotonic() - self._since_s > self._limit_s:
            return self.lose(self.late(f"{self._waits_for} took more than {self._limit_s:g} s"))
        return None

    def late(self, what: str) -> str:
        return what

    def lose(self, reason: str, *, fatal: str | None = None) -> Lost:
        """Removes all that is left of the crew, then says so."""
        self.kill()
        return Lost(crew_id=self.crew_id, reason=reason, fatal=fatal)

    def kill(self) -> None:
        for actor in self.actors:
            ray.kill(actor, no_restart=True)
        self.actors, self.result, self._limit_s = [], None, 0.0
        self.calls.clear()

    def wait_for(self, what: str, limit_s: float) -> None:
        """Sets the deadline; 0: there is none."""
        self._waits_for, self._since_s, self._limit_s = what, time.monotonic(), limit_s

    def began(self, _answer: Any = None) -> Event:
        self.wait_for("", 0.0)
        return Ready(crew_id=self.crew_id)

    def answered(self, verdict: Verdict) -> Event:
        """`verdict` is what the order took, the result's reference was ours from the start."""
        result, self.result = self.result, None
        self.wait_for("", 0.0)
        if isinstance(verdict, ClipFailure):
            return Refused(crew_id=self.crew_id, failure=verdict)
        return Done(crew_id=self.crew_id, result=result, seconds=verdict)

    def inputs_lost(self, error: RayError) -> Event:
        """What the order was to be made of is gone; the actors never saw it and are well."""
        kind = LATENTS_LOST if self.stage == "finish" else CONDITIONS_LOST
        return self.answered(ClipFailure(stage=self.stage, kind=kind, message=reason_of(error), retriable=True))


class EncoderCrew(Crew):
    stage: Stage = "encode"

    def start(self) -> None:
        self.actors = [_solo(PromptEncoder, self.place)]
        self.calls[self.actors[0].start.remote()] = self.began
        self.wait_for("starting", self.cluster.placement_timeout_s + self.cluster.load_timeout_s)

    def offer(self, order: Order) -> None:
        assert isinstance(order, EncodeOrder)
        verdict, self.result = self.actors[0].encode.options(num_returns=2).remote(order.condition)
        self.calls[verdict] = self.answered
        self.wait_for("encoding", self.cluster.encode_timeout_s)


class FinisherCrew(Crew):
    stage: Stage = "finish"

    def start(self) -> None:
        self.actors = [_solo(Finisher, self.place)]
        self.calls[self.actors[0].start.remote()] = self.began
        self.wait_for("starting", self.cluster.placement_timeout_s + self.cluster.load_timeout_s)

    def offer(self, order: Order) -> None:
        assert isinstance(order, FinishOrder)
        answer = self.actors[0].finish.remote(light(order.clip), order.attempt, order.latents)
        self.calls[answer] = self._finished
        self.wait_for("finishing", self.cluster.finish_timeout_s)

    def _finished(self, answer: Finished | ClipFailure) -> Event:
        if isinstance(answer, ClipFailure):
            return self.answered(answer)
        self.wait_for("", 0.0)
        return Done(crew_id=self.crew_id, result=answer, seconds=sum(answer.seconds.values()))


def light(clip: Clip) -> Clip:
    """Without the image's bytes: whoever renders or finishes has no use for them."""
    return dataclasses.replace(clip, image=None)


def reason_of(error: RayError) -> str:
    """One readable reason: the end of a remote traceback, or the first line of Ray's own explanation."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        return f"{type(cause).__name__}: {cause}"[:REASON_CHARS]
    if isinstance(error, RayActorError):
        kind = "an actor died" if isinstance(error, ActorDiedError) else "an actor cannot be reached"
        details = [line.strip() for line in str(error).splitlines() if "error" in line.lower() or "killed" in line]
        return f"{kind}: {' '.join(details)}"[:REASON_CHARS] if details else kind
    return f"{type(error).__name__}: {error}"[:REASON_CHARS]


def _cause(error: RayError, kind: type[Exception]) -> bool:
    return isinstance(error, kind) or (isinstance(error, RayTaskError) and isinstance(error.cause, kind))


def _solo(kind: type[Any], place: Workplace) -> Any:
    """An actor on one CPU that Ray never restarts by itself."""
    return ray.remote(kind).options(num_cpus=1, max_restarts=0, max_task_retries=0).remote(place)
