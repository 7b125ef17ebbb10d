"""What people and programs are told of a nightly, as plain values. Pure; outbox.py sends each once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal

from pipeline.counting import counted
from pipeline.nightly.agenda import duration
from pipeline.types import JsonDict

FORMAT = 1
EVENTS = ("done", "failed", "threshold", "deadline_at_risk")
Event = Literal["done", "failed", "threshold", "deadline_at_risk"]
SHOWN = 20  # failed clips with their reasons


@dataclass(frozen=True, kw_only=True)
class Notice:
    """`key` names what happened, not when: the same thing said twice is the same notice."""

    event: Event
    key: str  # unique for its event and manifest
    manifest: str | None  # its name; None: it is about the whole night
    night: str
    text: str  # one line for people
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.manifest or '_night'}/{self.event}-{self.key}"

    def payload(self, *, at: datetime, inbox: str, output: str) -> JsonDict:
        return {
            "format": FORMAT,
            "id": self.id,
            "event": self.event,
            "at": at.astimezone(UTC).isoformat(timespec="seconds"),
            "night": self.night,
            "inbox": inbox,
            "output": f"{output}/{self.manifest}" if self.manifest else output,
            "manifest": self.manifest,
            "text": self.text,
            "details": dict(self.details),
        }


def done(name: str, *, night: str, work: str, num_clips: int) -> Notice:
    text = f"{name} is done: {counted(num_clips, 'clip')}"
    return Notice(event="done", key=work, manifest=name, night=night, text=text, details={"num_clips": num_clips})


def clips_failed(
    name: str, *, night: str, work: str, num_clips: int, failed: Sequence[str], reasons: Mapping[str, str]
) -> Notice:
    """Once for each set of failed clips."""
    shown = {clip_id: reasons.get(clip_id, "") for clip_id in failed[:SHOWN]}
    return Notice(
        event="failed",
        key=f"clips-{digest(work, *sorted(failed))}",
        manifest=name,
        night=night,
        text=f"{name}: {len(failed)} of {counted(num_clips, 'clip')} failed",
        details={"kind": "clips", "num_clips": num_clips, "num_failed": len(failed), "failed": shown},
    )


def rejected(name: str, *, night: str, mark: str, reason: str, findings: str) -> Notice:
    """Once for each version of the file."""
    return Notice(
        event="failed",
        key=f"manifest-{mark}",
        manifest=name,
        night=night,
        text=f"{name} is set aside: {reason}",
        details={"kind": "manifest", "findings": findings, "reason": reason},
    )


def stopped(name: str, *, night: str, reason: str) -> Notice:
    """By storage, credentials, disk or the cluster: once a night."""
    return Notice(
        event="failed",
        key=f"environment-{night}",
        manifest=name,
        night=night,
        text=f"{name} was stopped: {reason}",
        details={"kind": "environment", "reason": reason},
    )


def many_failed(name: str, *, night: str, work: str, num_failed: int, most: int) -> Notice:
    return Notice(
        event="threshold",
        key=f"failed-{most}-{work}",
        manifest=name,
        night=night,
        text=f"{name}: {counted(num_failed, 'failed clip')}, the threshold is {most}",
        details={"kind": "failed", "num_failed": num_failed, "threshold": most},
    )


def budget_used(*, night: str, used: float, budget: float, share: float) -> Notice:
    return Notice(
        event="threshold",
        key=f"budget-{share:g}-{night}",
        manifest=None,
        night=night,
        text=f"{used:.1f} of tonight's {budget:g} GPU-hours are used",
        details={"kind": "budget", "gpu_hours": round(used, 3), "budget": budget, "threshold": share},
    )


def at_risk(name: str, *, night: str, work: str, must_finish_by: datetime, expected: datetime | None) -> Notice:
    """Once for each manifest and time. `expected` None: no end is in sight."""
    late = f"{duration((expected - must_finish_by).total_seconds())} late" if expected else "no end is in sight"
    return Notice(
        event="deadline_at_risk",
        key=f"{work}-{must_finish_by:%Y%m%dT%H%M}",
        manifest=name,
        night=night,
        text=f"{name} is to be finished by {must_finish_by:%Y-%m-%d %H:%M} UTC: {late}",
        details={
            "must_finish_by": must_finish_by.isoformat(timespec="seconds"),
            "expected": expected.isoformat(timespec="seconds") if expected else None,
        },
    )


def digest(*parts: str) -> str:
    return sha256("\n".join(parts).encode()).hexdigest()[:8]
