"""Where every row of a manifest stands in a run, in columns: some fifty bytes a row, no records, no Python objects."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger import ClipRecord
from pipeline.manifest.index import RowIndex
from pipeline.publication import KINDS
from pipeline.types import State

STATES: tuple[State, ...] = ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELED")
PENDING, RUNNING, SUCCEEDED, FAILED, CANCELED = range(len(STATES))
ATTEMPT_DIGITS = 8
SECONDS_DECIMALS = 4  # kept of a stage's time


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What results repeat of a record; the rest follows from the row."""

    attempt: str  # 8 hex digits
    kinds: frozenset[str]  # of its files
    num_attempts: int
    seconds: Mapping[str, float]  # by stage


def delivery_of(record: ClipRecord) -> Delivery:
    return Delivery(
        attempt=record.finished.attempt,
        kinds=frozenset(record.finished.files),
        num_attempts=record.num_attempts,
        seconds=record.seconds,
    )


class Outcomes:
    """By position in a manifest's index. Everything is PENDING at first; what has succeeded stays so."""

    def __init__(self, index: RowIndex) -> None:
        count = len(index)
        self._index = index
        self._states = np.zeros(count, np.uint8)
        self._attempts = np.zeros(count, f"S{ATTEMPT_DIGITS}")
        self._kinds = np.zeros(count, np.uint8)  # a bit each
        self._num_attempts = np.zeros(count, np.uint16)
        self._seconds: dict[str, np.ndarray] = {}  # stage -> float32, NaN where it is not known
        self._errors: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._states)

    @property
    def size_bytes(self) -> int:
        """Memory that all columns take, errors aside."""
        columns = (self._states, self._attempts, self._kinds, self._num_attempts, *self._seconds.values())
        return sum(each.nbytes for each in columns)

    def succeed(self, position: int, delivery: Delivery) -> None:
        """The state last: whoever writes results in another thread sees all of it or nothing."""
        assert len(delivery.attempt) <= ATTEMPT_DIGITS, delivery.attempt
        self._attempts[position] = delivery.attempt.encode()
        self._kinds[position] = sum(1 << bit for bit, kind in enumerate(KINDS) if kind in delivery.kinds)
        self._num_attempts[position] = min(delivery.num_attempts, np.iinfo(np.uint16).max)
        for stage, seconds in delivery.seconds.items():
            if stage not in self._seconds:
                self._seconds |= {stage: np.full(len(self), np.nan, np.float32)}  # a new table: it may be in use
            self._seconds[stage][position] = seconds
        self._states[position] = SUCCEEDED

    def fail(self, position: int, error: str) -> None:
        self._errors[position] = error
        self._states[position] = FAILED

    def cancel(self) -> None:
        """What has no outcome is not wanted any more."""
        self._states[self._states == PENDING] = CANCELED

    def snapshot(self, running: Sequence[str] = ()) -> "Outcomes":
        """As it is now, to be written while the run goes on; of these clips, those without an outcome are RUNNING."""
        now = copy.copy(self)
        now._states, now._errors = self._states.copy(), dict(self._errors)
        if running:
            are_running = pc.is_in(self._index.ids, value_set=pa.array(running, self._index.ids.type))
            now._states[np.asarray(are_running) & (now._states == PENDING)] = RUNNING
        return now

    def counts(self) -> dict[State, int]:
        """All five, zeros too."""
        found = np.bincount(self._states, minlength=len(STATES)).tolist()
        return dict(zip(STATES, found, strict=True))

    def failures(self) -> dict[str, str]:
        """clip id -> reason, in manifest order."""
        failed = np.flatnonzero(self._states == FAILED).tolist()
        return {self._index.clip_id(position): self._errors[position] for position in failed}

    # Columns of results, for some positions.

    def states(self, at: slice) -> pa.Array:
        return pa.array(STATES).take(pa.array(self._states[at]))

    def errors(self, at: range) -> pa.Array:
        return pa.array([self._errors.get(position) for position in at], pa.string())

    def has(self, kind: str, at: slice) -> np.ndarray:
        """Which clips have succeeded with such a file: bool."""
        found: np.ndarray = (self._states[at] == SUCCEEDED) & (self._kinds[at] >> KINDS.index(kind) & 1).astype(
            np.bool_
        )
        return found

    def is_done(self, at: slice) -> np.ndarray:
        done: np.ndarray = self._states[at] == SUCCEEDED
        return done

    def attempts(self, at: slice) -> list[str]:
        """Empty where there is none."""
        return [each.decode() for each in self._attempts[at].tolist()]

    def num_attempts(self, at: slice) -> pa.Array:
        return pa.array(self._num_attempts[at].astype(np.int64), mask=~self.is_done(at))

    def seconds(self, at: slice) -> pa.Array:
        """A map from stage to seconds for each clip that has succeeded."""
        stages, done = sorted(self._seconds), self.is_done(at)
        times = np.stack([self._seconds[stage][at] for stage in stages], axis=1) if stages else np.zeros((len(done), 0))
        known = ~np.isnan(times) & done[:, None]
        names = np.broadcast_to(np.array(stages, dtype=object), times.shape)[known]
        ends = np.cumsum(known.sum(axis=1))
        offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32), mask=np.append(~done, False))
        values = np.round(times[known].astype(np.float64), SECONDS_DECIMALS)
        return pa.MapArray.from_arrays(offsets, pa.array(names, pa.string()), pa.array(values, pa.float64()))
