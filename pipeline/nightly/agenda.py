"""What is to be rendered next, given what is left, how long it would take, the time and the budget. Pure.

A manifest starts if it would end in what is left of the night and of the budget. One that would need most of a whole
night, or more, starts as soon as a clip of it would end, and goes on the next night.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pipeline.nightly.windows import Night, Window

WHOLE = 0.9  # of a night: what takes longer might never find room enough
LEAST_S = 1.0  # less room than that is none
MOST_NIGHTS = 400  # that are looked ahead


@dataclass(frozen=True, kw_only=True)
class Work:
    """A manifest with clips that are not made yet, and what the estimate says of them."""

    name: str
    priority: int  # the highest of its rows
    since: datetime  # when the manifest was written
    seconds: float | None  # of all that is left; None: no estimate
    startup_s: float  # before the first clip
    clip_s: float | None  # of the longest clip
    gpus: int  # that would be busy; on CPUs a rank counts as one


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a night and a budget allow. Without a budget the last two are None."""

    left_s: float  # of the night; 0 while it has not begun
    usual_s: float  # of a whole night
    budget: float | None = None  # GPU-hours of a whole night
    budget_left: float | None = None

    def left_for(self, work: Work) -> float:
        return self.left_s if self.budget_left is None else min(self.left_s, _seconds(self.budget_left, work.gpus))

    def whole_for(self, work: Work) -> float:
        return self.usual_s if self.budget is None else min(self.usual_s, _seconds(self.budget, work.gpus))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Of one manifest: whether it may start now; if not, or only in part, why."""

    work: Work
    starts: bool
    whole: bool = True  # it would end in the room there is
    reason: str = ""


def in_order(works: Sequence[Work]) -> list[Work]:
    """Higher priority first, then the older one."""
    return sorted(works, key=lambda work: (-work.priority, work.since, work.name))


def judge(work: Work, room: Room, *, split: bool = False) -> Verdict:
    """`split`: whatever does not fit starts as soon as a clip of it would end."""
    left_s, whole_s = room.left_for(work), room.whole_for(work)
    if left_s < LEAST_S:
        return Verdict(work=work, starts=False, reason=_closed(room))
    if work.seconds is None:
        return Verdict(work=work, starts=True, whole=False, reason="there is no estimate yet: it starts to be measured")
    if work.seconds <= left_s:
        return Verdict(work=work, starts=True)
    takes = f"would take {duration(work.seconds)}, {duration(left_s)} are left of {_of_what(work, room)}"
    if not split and work.seconds <= whole_s * WHOLE:
        return Verdict(work=work, starts=False, reason=takes)
    if work.startup_s + (work.clip_s or 0.0) <= left_s:
        return Verdict(work=work, starts=True, whole=False, reason=f"{takes}: it goes on the next night")
    return Verdict(work=work, starts=False, reason=f"{takes}, less than its start and one clip take")


def first_that_starts(works: Sequence[Work], room: Room, *, split: bool = False) -> Verdict | None:
    """What is rendered next. One that must wait keeps none behind it waiting."""
    verdicts = (judge(work, room, split=split) for work in in_order(works))
    return next((each for each in verdicts if each.starts), None)


def forecast(
    works: Sequence[Work], *, window: Window, now: datetime, budget: float | None, used: float, split: bool = False
) -> Mapping[str, datetime | None]:
    """When each manifest would end if nothing new came; None: not within a year, or there is no estimate.

    `budget`: GPU-hours of each night, `used` those of the one that is open or comes next.
    """
    left = {work.name: work for work in works if work.seconds is not None}
    ends: dict[str, datetime | None] = dict.fromkeys((work.name for work in works), None)
    night, moment = window.next_night(now), now
    for _ in range(MOST_NIGHTS):
        if not left:
            break
        moment = max(moment, night.opens_at)
        while True:
            room = room_of(night, moment, window=window, budget=budget, used=used)
            verdict = first_that_starts(list(left.values()), room, split=split)
            if verdict is None:
                break
            work = verdict.work
            worked_s = min(work.seconds or 0.0, room.left_for(work))
            moment += timedelta(seconds=worked_s)
            used += worked_s * work.gpus / 3600
            if verdict.whole:
                ends[work.name] = moment
                del left[work.name]
            else:
                rest_s = (work.seconds or 0.0) - worked_s + work.startup_s
                left[work.name] = replace(work, seconds=rest_s)
        night, used = window.after(night), 0.0
    return ends


def room_of(night: Night, now: datetime, *, window: Window, budget: float | None, used: float) -> Room:
    left_s = (night.closes_at - now).total_seconds() if night.holds(now) else 0.0
    left = None if budget is None else max(budget - used, 0.0)
    return Room(left_s=left_s, usual_s=window.usual_s, budget=budget, budget_left=left)


def duration(seconds: float) -> str:
    """For people: 3 h 05 min, 12 min, 40 s."""
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def _seconds(gpu_hours: float, gpus: int) -> float:
    return gpu_hours * 3600 / max(gpus, 1)


def _of_what(work: Work, room: Room) -> str:
    return "the window" if room.left_for(work) == room.left_s else "the budget"


def _closed(room: Room) -> str:
    return "the window is closed" if room.left_s < LEAST_S else "the budget is spent"
