"""What a failure costs whom: pure decisions on plain values, tested row by row. No clock, no Ray.

| what happened                                     | the clip                        | the run                        |
|---------------------------------------------------|---------------------------------|--------------------------------|
| storage said no, weights or settings do not fit   | as it was                       | stops: exit 5, or 2            |
| an error that the same input would repeat         | FAILED with the reason          | goes on                        |
| its group died                                    | again, FAILED at its death cap  | group built anew, below        |
| its finisher or encoder died, or failed oddly     | that stage again, FAILED at cap | crew started anew, below       |
| latents or conditions went down with their node   | the stage that made them again  | goes on                        |
| a crew lost in a row with different clips, at cap | as it was                       | goes on without that crew      |
| the last crew of a stage                          | as it was                       | finishes what it can: exit 5   |
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from enum import Enum, auto

from pipeline.settings import ClusterSettings, RetrySettings
from pipeline.types import ClipFailure, Stage

FATAL = {"ConfigError": 2, "WeightsError": 2, "StoreError": 5}  # error class -> exit code of the run it stops


class Verdict(Enum):
    RETRY = auto()
    FAIL = auto()
    STOP = auto()


def judge(failures: Sequence[ClipFailure], retry: RetrySettings) -> Verdict:
    """A clip's whole history in this run, the newest failure last."""
    newest = failures[-1]
    if newest.kind in FATAL:
        return Verdict.STOP
    if not newest.retriable:
        return Verdict.FAIL
    caps: dict[Stage, int] = {
        "encode": retry.max_encode_attempts,
        "render": retry.max_clip_deaths,
        "finish": retry.max_finish_attempts,
    }
    count = sum(failure.stage == newest.stage and failure.retriable for failure in failures)
    return Verdict.FAIL if count >= caps[newest.stage] else Verdict.RETRY


def places_behind(retry: RetrySettings) -> int:
    """How far behind the queue's head a clip goes that lost its group.

    With that many others in between, a run that stops because every clip kills its group stops before any of them
    is given up wrongly, and a poisonous clip among good ones never stops a run.
    """
    return retry.max_crew_losses - 1


class Streaks:
    """Losses in a row of each crew. Losses with one and the same suspect count once: it is suspected first."""

    def __init__(self, retry: RetrySettings) -> None:
        self._cap = retry.max_crew_losses
        self._suspects: dict[str, set[object]] = defaultdict(set)
        self._without: Counter[str] = Counter()

    def lost(self, crew_id: str, suspect: object) -> bool:
        """True: start it again. False: it has reached its cap. `suspect`: its clip or condition, or None."""
        if suspect is None:
            self._without[crew_id] += 1
        else:
            self._suspects[crew_id].add(suspect)
        return self._without[crew_id] + len(self._suspects[crew_id]) < self._cap

    def worked(self, crew_id: str) -> None:
        self._suspects.pop(crew_id, None)
        self._without.pop(crew_id, None)


def overdue(*, order_s: float, step_s: float, step: str, settings: ClusterSettings) -> str | None:
    """Why a busy group counts as hung: `order_s` since its clip was offered, `step_s` since its last step or offer."""
    if step_s > settings.step_timeout_s:
        return f"no step for {step_s:.0f} s after {step} (cluster.step_timeout_s is {settings.step_timeout_s:g})"
    if order_s > settings.clip_timeout_s:
        return f"not done after {order_s:.0f} s, at {step} (cluster.clip_timeout_s is {settings.clip_timeout_s:g})"
    return None
