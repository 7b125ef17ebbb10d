"""What an error of Ray means for the crew it comes from: which kind of loss, and one readable reason."""

from typing import Any, TypeVar

from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
)

from pipeline.crews.nodes import Nodes
from pipeline.errors import ConfigError, StoreError, WeightsError
from pipeline.fleet import LossKind

FATAL = (ConfigError, WeightsError, StoreError)  # another start would end the same way
Cause = TypeVar("Cause", bound=Exception)
REASON_CHARS = 1500
NODE_DIED = "its node has died"  # in Ray's explanation of why an actor is dead


def kind_of(error: RayError, *, node: str | None, nodes: Nodes) -> LossKind:
    """`node`: where the actor was, if that is known; `nodes`: now."""
    if isinstance(error, ActorUnschedulableError):
        return "unplaced"
    if isinstance(error, ActorUnavailableError | NodeDiedError | GetTimeoutError):
        return "preempted"  # it may live, but nobody can reach it
    if isinstance(error, RayActorError) and (error.preempted or NODE_DIED in str(error)):
        return "preempted"
    if node is not None and node not in nodes.staying and not isinstance(error, RayTaskError):
        return "preempted"
    return "died"


def fatal_of(error: RayError) -> str | None:
    return next((kind.__name__ for kind in FATAL if has_cause(error, kind)), None)


def has_cause(error: RayError, kind: type[Exception]) -> bool:
    return cause_of(error, kind) is not None


def cause_of(error: RayError, kind: type[Cause]) -> Cause | None:
    """The error itself, or what a task raised."""
    cause = error.cause if isinstance(error, RayTaskError) and not isinstance(error, kind) else error
    return cause if isinstance(cause, kind) else None


def is_about(error: RayError, ref: Any) -> bool:
    """Whether it says that the object of that reference is lost, and not another one."""
    lost = cause_of(error, ObjectLostError)
    return lost is not None and lost.object_ref_hex == ref.hex()


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
