"""What a person sees while a run lasts: a live table on a terminal, now and then a plain line elsewhere.

It reads snapshots and knows nothing of the driver; a display that breaks would break no clip.
"""

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.summary import Snapshot
from pipeline.types import GroupStatus

PLAIN_PERIOD_S, SHORTEST_PERIOD_S = 10.0, 1.0
BAR_WIDTH = 30
Show = Callable[[Snapshot], None]
log = logging.getLogger(__name__)


@contextmanager
def progress(console: Console | None = None) -> Iterator[Show]:
    """A function that shows snapshots, on stderr unless another console is given."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield PlainLines()
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live, _logging_above(live):
        yield lambda snapshot: live.update(draw(snapshot))


class PlainLines:
    """One line when clips are done or have failed, but not more often than each second; and every ten seconds."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, say: Callable[[str], None] | None = None
    ) -> None:
        self._clock, self._say = clock, say or log.info
        self._said: tuple[int, int] | None = None
        self._said_at = -math.inf

    def __call__(self, snapshot: Snapshot) -> None:
        ended = (snapshot.num_succeeded, snapshot.num_failed)
        now = self._clock()
        pause_s = now - self._said_at
        if (ended != self._said and pause_s >= SHORTEST_PERIOD_S) or pause_s >= PLAIN_PERIOD_S:
            self._said, self._said_at = ended, now
            self._say(plain_line(snapshot))


def plain_line(snapshot: Snapshot) -> str:
    """Counts, pace, and where each group is."""
    groups = ", ".join(f"{group.group_id} {_doing(group, snapshot)}" for group in snapshot.groups)
    return f"{_counts(snapshot)}; {groups}" if groups else _counts(snapshot)


def draw(snapshot: Snapshot) -> RenderableType:
    """A bar for the run, a line for each group."""
    head = Table.grid(padding=(0, 1))
    head.add_row(_bar(snapshot.num_succeeded + snapshot.num_failed, snapshot.num_clips), _counts(snapshot))
    groups = Table.grid(padding=(0, 1))
    for group in snapshot.groups:
        bar = _bar(group.step, group.num_steps) if group.state == "busy" else Text("")
        groups.add_row(Text(group.group_id, style="bold"), bar, Text(_doing(group, snapshot)))
    return Group(head, groups)


def _counts(snapshot: Snapshot) -> str:
    parts = [f"{snapshot.num_succeeded} of {snapshot.num_clips} done"]
    parts += [f"{snapshot.num_failed} failed"] if snapshot.num_failed else []
    parts += [f"{len(snapshot.in_flight)} running"]
    if snapshot.clips_per_hour is not None:
        parts += [f"{snapshot.clips_per_hour:.0f} clips/h"]
    if snapshot.stopping is not None:
        parts += ["stopping"]
    elif snapshot.paused is not None:
        parts += ["paused"]
    elif snapshot.eta_s is not None:
        parts += [f"{duration(snapshot.eta_s)} left"]
    return ", ".join(parts)


def _doing(group: GroupStatus, snapshot: Snapshot) -> str:
    if group.state == "lost" and snapshot.paused is not None:
        return "given back"
    if group.state != "busy":
        return group.state
    return f"{group.clip_id} step {group.step}/{group.num_steps}"


def _bar(done: int, total: int) -> ProgressBar:
    return ProgressBar(total=max(total, 1), completed=done, width=BAR_WIDTH)


def duration(seconds: float) -> str:
    """Two units at most: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def _logging_above(live: Live) -> Iterator[None]:
    """Log lines go through the display while it is there; written past it, they would tear it apart."""
    handlers = [each for each in logging.getLogger().handlers if isinstance(each, logging.StreamHandler)]
    before = [(each, each.stream) for each in handlers if each.stream in (sys.__stderr__, sys.__stdout__)]
    for handler, _ in before:
        handler.setStream(sys.stderr)  # rich has put its own there
    try:
        yield
    finally:
        for handler, stream in before:
            handler.setStream(stream)
