"""How a run stands, from its output alone: `run.json`, the lease and `control/`, whatever the number of clips.

It works while the run is at work, after it ended, and after the cluster it ran on is gone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.control import Asked, asked_of
from pipeline.errors import ConfigError
from pipeline.lease.looking import Seen, look
from pipeline.results import read_run
from pipeline.store import Store
from pipeline.types import JsonDict

EXAMPLES = 3  # clips shown of those that failed for one reason
LEAST_ID = 4  # characters; a shorter id may be a word of the message
NUMBERS = re.compile(r"0x[0-9a-f]+|\b(?=[0-9a-f]*\d)[0-9a-f]{6,}\b|\d+(?:[.,:]\d+)*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Clips that failed alike: `text` has # where their messages have numbers, and CLIP for the clip's own id."""

    text: str
    count: int
    clips: tuple[str, ...]  # the first few


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """`run` is what the last run wrote of itself, None: nothing yet. `seen`: who holds the output, None: nobody did."""

    run_id: str
    run: JsonDict | None
    seen: Seen | None
    asked: Asked
    reasons: tuple[Reason, ...]
    age_s: float | None  # of what `run` says

    @property
    def holds(self) -> bool:
        """It has the output, or had it last and is not known to be gone."""
        return self.seen is not None and self.seen.may_live and self.seen.holder.run_id == self.run_id

    @property
    def is_live(self) -> bool:
        """It may be at work, and be asked for something."""
        return self.holds and (self.run or {}).get("ended_at") is None


def read_status(store: Store, *, now: datetime | None = None) -> RunStatus:
    """ConfigError if no run has ever been there."""
    now = now or datetime.now(UTC)
    run, seen = read_run(store), look(store, now=now)
    run_id = current_run(run, seen)
    if run_id is None:
        raise ConfigError(f"{store.uri}: no run has been at work there, expected the output of a render")
    if run is not None and run.get("run_id") != run_id:
        run = None  # of an earlier one
    return RunStatus(
        run_id=run_id,
        run=run,
        seen=seen,
        asked=asked_of(store, run_id),
        reasons=reasons_of(run.get("failures", {}) if run else {}),
        age_s=_age_s(run, now),
    )


def current_run(run: JsonDict | None, seen: Seen | None) -> str | None:
    """The id of the run that has the output, else of the last that wrote of itself. `clean` has leases and is none."""
    held_by = seen.holder.run_id if seen is not None and not seen.holder.run_id.startswith("clean-") else None
    wrote = run.get("run_id") if run is not None else None
    if isinstance(wrote, str) and not (held_by and seen and seen.may_live):
        return wrote
    return held_by


def reasons_of(failures: Mapping[str, str]) -> tuple[Reason, ...]:
    """Clip ids by their reasons, the commonest first."""
    found: dict[str, list[str]] = {}
    for clip_id, reason in failures.items():
        found.setdefault(folded(reason, clip_id=clip_id), []).append(clip_id)
    reasons = [Reason(text=text, count=len(ids), clips=tuple(ids[:EXAMPLES])) for text, ids in found.items()]
    return tuple(sorted(reasons, key=lambda each: -each.count))


def folded(reason: str, *, clip_id: str) -> str:
    """Equal for reasons that differ in numbers and ids alone."""
    if len(clip_id) >= LEAST_ID and clip_id in reason:
        reason = re.sub(rf"(?<![\w/-]){re.escape(clip_id)}(?![\w-]|\.\w)", "CLIP", reason)
    return NUMBERS.sub("#", reason)


def _age_s(run: JsonDict | None, now: datetime) -> float | None:
    try:
        return max((now - datetime.fromisoformat(run["written_at"])).total_seconds(), 0.0) if run else None
    except (KeyError, TypeError, ValueError):
        return None
