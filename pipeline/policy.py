"""What a failure costs whom: pure decisions on plain values, tested row by row. No clock, no Ray.

| what happened                                     | the clip                        | crew, node and GPU              | the run              |
|---------------------------------------------------|---------------------------------|---------------------------------|----------------------|
| storage said no, weights or settings do not fit   | as it was                       |                                 | stops: exit 5, or 2  |
| an error that the same input would repeat         | FAILED with the reason          |                                 | goes on              |
| all its ranks, encoder or finisher lacked memory  | FAILED, with what it needs      | they go on                      | goes on              |
| a process of its group died, or it hung           | again, FAILED at its death cap  | a loss, a strike for node, GPU  | goes on              |
| its finisher or encoder died, or failed oddly     | again, by others, FAILED at cap | a loss, a strike for the node   | goes on              |
| its node went, drains or cannot be reached        | again, free of charge           | placed elsewhere                | goes on              |
| latents or conditions went down with their node   | the stage that made them again  |                                 | goes on              |
| an enlarging group died, hung or lost its node    | the same, with the draft it had | the same                        | goes on              |
| no room for a crew, and others of its kind work   |                                 | waits again                     | goes on              |
| no room for any group of one kind of two          |                                 | one of the other kind gives way | goes on              |
| losses in a row with different clips, at cap      | as it was                       | the crew is not started again   | goes on without it   |
| strikes on a GPU in a row, at cap                 |                                 | nothing starts on it for a time | goes on              |
| strikes on a node in a row, that GPU's left out   |                                 | nothing starts there for a time | goes on              |
| the last crew of a stage that is needed is gone   | as it was                       |                                 | exit 5, first what is in flight |
| more clips FAILED than the limit, or the first K  | as it was                       |                                 | exit 5, first what is in flight |
"""  # noqa: E501  # a table

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import NamedTuple

from pipeline.counting import counted
from pipeline.fleet import CONDITIONS_LOST, LATENTS_LOST, PREEMPTED, Gpu
from pipeline.settings import RetrySettings
from pipeline.types import ClipFailure, Stage

FATAL = {"ConfigError": 2, "WeightsError": 2, "StoreError": 5}  # error class -> exit code of the run it stops
FREE = frozenset({PREEMPTED, CONDITIONS_LOST, LATENTS_LOST})  # kinds of failure that cost a clip nothing


class Verdict(Enum):
    RETRY = auto()
    FAIL = auto()
    STOP = auto()


def judge(failures: Sequence[ClipFailure], retry: RetrySettings) -> Verdict:
    """A clip's whole history in this run, the newest failure last."""
    newest = failures[-1]
    if newest.kind in FATAL:
        return Verdict.STOP
    if newest.kind in FREE:
        count, cap = sum(failure.kind in FREE for failure in failures), retry.max_evictions
        return Verdict.FAIL if count >= cap else Verdict.RETRY
    if not newest.retriable:
        return Verdict.FAIL
    caps: dict[Stage, int] = {
        "encode": retry.max_encode_attempts,
        "render": retry.max_clip_deaths,
        "enlarge": retry.max_clip_deaths,  # counted for itself
        "finish": retry.max_finish_attempts,
    }
    count = sum(each.stage == newest.stage and each.retriable and each.kind not in FREE for each in failures)
    return Verdict.FAIL if count >= caps[newest.stage] else Verdict.RETRY


def is_odd(failure: ClipFailure) -> bool:
    """Whether it may be the fault of the process or the node that it happened in as well as of the clip."""
    return failure.retriable and failure.kind not in FREE


def places_behind(retry: RetrySettings) -> int:
    """How far behind the queue's head a clip goes that lost its group.

    With that many others in between, a run that stops because every clip kills its group stops before any of them
    is given up wrongly, and a poisonous clip among good ones never stops a run.
    """
    return retry.max_crew_losses - 1


class Streaks:
    """Losses in a row of each crew. Losses with one and the same suspect count once: it is suspected first."""

    def __init__(self, retry: RetrySettings) -> None:
        self._retry = retry
        self._suspects: dict[str, set[object]] = defaultdict(set)
        self._without: Counter[str] = Counter()
        self._evictions: Counter[str] = Counter()

    def lost(self, crew_id: str, suspect: object) -> bool:
        """True: start it again. False: it has reached its cap. `suspect`: its clip or condition, or None."""
        if suspect is None:
            self._without[crew_id] += 1
        else:
            self._suspects[crew_id].add(suspect)
        return self._without[crew_id] + len(self._suspects[crew_id]) < self._retry.max_crew_losses

    def evicted(self, crew_id: str) -> bool:
        """True: start it again elsewhere. False: it finds no node that stays."""
        self._evictions[crew_id] += 1
        return self._evictions[crew_id] < self._retry.max_evictions

    def worked(self, crew_id: str) -> None:
        for counts in (self._suspects, self._without, self._evictions):
            counts.pop(crew_id, None)


class Strike(NamedTuple):
    at: float
    gpu: Gpu | None  # the suspected one


class Blocked(NamedTuple):
    """Where nothing is to be started now."""

    nodes: frozenset[str] = frozenset()  # ids
    gpus: frozenset[Gpu] = frozenset()


class Strikes:
    """Nodes and GPUs on which crews were lost with different clips, in each stage for itself.

    Work done there takes one back. What one GPU is blocked for is not its node's fault as well.
    """

    def __init__(self, retry: RetrySettings, *, clock: Callable[[], float]) -> None:
        self._retry, self._clock = retry, clock
        self._strikes: dict[tuple[str | Gpu, Stage], dict[object, Strike]] = defaultdict(dict)  # by suspect

    def strike(self, node: str, stage: Stage, suspect: object, *, gpu: Gpu | None = None) -> None:
        """One suspect strikes a node, and a GPU of it, once; without one, each loss counts."""
        suspect = object() if suspect is None else suspect
        for place in (node, gpu) if gpu is not None else (node,):
            self._strikes[place, stage][suspect] = Strike(self._clock(), gpu)

    def worked(self, places: Iterable[str | Gpu], stage: Stage) -> None:
        for place in places:
            strikes = self._strikes.get((place, stage))
            if strikes:
                strikes.pop(next(iter(strikes)))

    def blocked(self) -> Blocked:
        oldest = self._clock() - self._retry.forgive_s
        for strikes in self._strikes.values():
            for suspect in [each for each, strike in strikes.items() if strike.at <= oldest]:
                del strikes[suspect]
        full = self._retry.max_node_strikes
        gpus = {place for (place, _), each in self._strikes.items() if isinstance(place, Gpu) and len(each) >= full}
        nodes = {
            place
            for (place, _), each in self._strikes.items()
            if isinstance(place, str) and sum(strike.gpu not in gpus for strike in each.values()) >= full
        }
        return Blocked(frozenset(nodes), frozenset(gpus))


def too_many_failed(*, failed: int, succeeded: int, total: int, retry: RetrySettings) -> str | None:
    """Why a run with so many FAILED of `total` clips is not worth going on with. `succeeded`: earlier runs' too."""
    if failed == total:
        return None  # nothing is left to save
    first = retry.first_failed
    if first is not None and failed >= first and not succeeded:
        clips = f"first {failed} clips have all" if failed > 1 else "first clip has"
        return f"the {clips} failed (retry.first_failed is {first})"
    if retry.max_failed is not None and failed > retry.max_failed:
        return f"{_have(failed)} failed (retry.max_failed is {retry.max_failed})"
    percent = retry.max_failed_percent
    if percent is not None and failed * 100 > percent * total:
        return f"{failed} of {total} clips have failed (retry.max_failed_percent is {percent:g})"
    return None


def _have(count: int) -> str:
    return f"{counted(count, 'clip')} {'has' if count == 1 else 'have'}"
