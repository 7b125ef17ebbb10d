"""Nights in no time: a clock that is moved, an inbox of real files, and the real driver over simulated crews.

A manifest is a text of `clip_id seconds` lines; each clip takes that long in its group, by the measured times of runs.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.board import Place
from pipeline.driver import Driver, Oversight, StopSignal
from pipeline.errors import ClusterError, Finding, LeaseHeld, ManifestError, OutputPaused, RenderError, StoreError
from pipeline.fleet import Event, Order, RenderOrder
from pipeline.nightly.agenda import Work
from pipeline.nightly.channels import Channel, NotDelivered, Unsure
from pipeline.nightly.inbox import Found
from pipeline.nightly.journal import Journal
from pipeline.nightly.loop import Nightly, Report
from pipeline.nightly.notices import digest
from pipeline.nightly.outbox import Outbox
from pipeline.nightly.renderer import Look, Rendered
from pipeline.nightly.settings import NightlySettings
from pipeline.nightly.windows import Window
from pipeline.settings import ClusterSettings, LeaseSettings, ParallelSettings, RetrySettings, RunSettings
from pipeline.store import StorageSettings, open_store
from pipeline.summary import SOME_FAILED, SUCCESS, RunSummary, Snapshot
from pipeline.types import JsonDict, Wish
from tests.clips import MEDIA
from tests.fakes import FakeFleet, MemoryRecorder, make_clip
from tests.models import small_model

STARTUP_S = 120.0
QUARTER_S = 15.0  # how often a simulated driver looks around, where a real one does so four times a second
BREAKAGES = [StoreError("cannot write: no space left"), ClusterError("no Ray cluster at 10.0.0.1:6379: refused")]
LATE = timedelta(seconds=QUARTER_S)  # at most, after its window


class Crash(BaseException):
    """The process is gone: nobody catches this, and nothing is written after it."""


@dataclass
class SimClock:
    moment: datetime
    slept: list[float] = field(default_factory=list)
    until: datetime | None = None  # the test is over: whoever sleeps longer than that is stopped

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float, /) -> None:
        if self.until is not None and self.moment >= self.until:
            raise KeyboardInterrupt
        self.slept.append(seconds)
        self.moment += timedelta(seconds=max(seconds, 0.001))


@dataclass
class SlowFleet(FakeFleet):
    """Each clip takes its own time in the group, and the night's clock goes along."""

    clock_of_night: SimClock = field(default_factory=lambda: SimClock(datetime.now(UTC)))
    takes: Mapping[str, float] = field(default_factory=dict)

    def offer(self, crew_id: str, order: Order, /) -> None:
        if isinstance(order, RenderOrder):
            self.seconds = {**self.seconds, "render": self.takes[order.clip.clip_id]}
        super().offer(crew_id, order)

    def wait(self, timeout_s: float, /) -> list[Event]:
        """Longer than asked, or a week would take minutes: to the next quarter of a minute, where windows end."""
        before = self.now_s
        events = super().wait(max(timeout_s, QUARTER_S - self.clock_of_night.moment.timestamp() % QUARTER_S))
        self.clock_of_night.moment += timedelta(seconds=self.now_s - before)
        return events


@dataclass
class Memory:
    """What has been recorded in each output. Outlives a crash, as storage does."""

    records: dict[str, MemoryRecorder] = field(default_factory=dict)
    spans: list[tuple[str, datetime, datetime]] = field(default_factory=list)  # when a manifest was rendered

    def of(self, name: str) -> MemoryRecorder:
        return self.records.setdefault(name, MemoryRecorder())


@dataclass
class SimRenderer:
    clock: SimClock
    memory: Memory
    slower: Callable[[str], float] = lambda name: 1.0  # than measured
    crashes: dict[str, int] = field(default_factory=dict)  # name -> clips after which the process is gone, once
    held: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    canceled: set[str] = field(default_factory=set)  # as soon as a clip is done
    breaks: Counter[str] = field(default_factory=Counter)  # name -> how often the environment stops it
    breakage: RenderError = field(default_factory=lambda: StoreError("cannot write: no space left"))
    unmeasured: set[str] = field(default_factory=set)
    gpus: int = 8
    looked: Counter[str] = field(default_factory=Counter)

    def look(self, found: Found, /) -> Look:
        self.looked[found.name] += 1
        rows = read_rows(found)
        recorder = self.memory.of(found.name)
        left = {clip_id: s for clip_id, s in rows.items() if clip_id not in {*recorder.records, *recorder.failures}}
        known = found.name not in self.unmeasured
        return Look(
            num_clips=len(rows),
            num_left=len(left),
            failed=tuple(clip_id for clip_id in rows if clip_id in recorder.failures),
            digest=digest(found.name, *rows),
            work=Work(
                name=found.name,
                priority=int(Path(found.address).name[0] == "u"),  # urgent ones
                since=found.written_at,
                seconds=STARTUP_S + sum(left.values()) if known else None,
                startup_s=STARTUP_S if known else 0.0,
                clip_s=max(left.values(), default=0.0) if known else None,
                gpus=self.gpus,
            ),
        )

    def render(self, found: Found, /, *, stop: StopSignal, observe: Callable[[Snapshot], None]) -> Rendered:
        if found.name in self.held:
            raise LeaseHeld(f"{found.name} is held by a run that lives")
        if found.name in self.paused:
            raise OutputPaused(f"{found.name} was paused by ann: nothing was started")
        if self.breaks[found.name]:
            self.breaks[found.name] -= 1
            raise self.breakage
        began, rows, recorder = self.clock.now(), read_rows(found), self.memory.of(found.name)
        clips = [
            make_clip(clip_id, row=n)
            for n, clip_id in enumerate(rows)
            if clip_id not in {*recorder.records, *recorder.failures}
        ]
        fleet = SlowFleet(
            clock_of_night=self.clock,
            takes={clip_id: seconds * self.slower(found.name) for clip_id, seconds in rows.items()},
            poison={clip_id for clip_id in rows if clip_id.startswith("poison")},
        )
        self.clock.moment += timedelta(seconds=STARTUP_S - 3)
        crash_after = self.crashes.get(found.name)

        wish = Wish()

        def look_on(snapshot: Snapshot) -> None:
            nonlocal wish
            if found.name in self.canceled and snapshot.num_succeeded:
                wish = Wish(kind="cancel", said="by ann")
            if crash_after is not None and snapshot.num_succeeded >= crash_after:
                del self.crashes[found.name]
                raise Crash
            observe(snapshot)

        driver = Driver(
            clips,
            fleet=fleet,
            recorder=recorder,
            cluster=ClusterSettings(stop_grace_s=10),
            retry=RetrySettings(max_clip_deaths=1, max_crew_losses=9),
            oversight=Oversight(stop=stop, wish=lambda: wish, observe=look_on),
            clock=fleet.clock,
        )
        try:
            outcome = driver.run()
        finally:
            self.memory.spans.append((found.name, began, self.clock.now()))
        num = {place: outcome.board.count(place) for place in (Place.SUCCEEDED, Place.FAILED)}
        failed = dict.fromkeys(recorder.failures, "its group died")
        code = SOME_FAILED if failed else SUCCESS
        summary = RunSummary(
            exit_code=code if outcome.exit_code is None else outcome.exit_code,
            num_clips=len(rows),
            num_done_before=len(rows) - len(clips),
            num_rendered=num[Place.SUCCEEDED],
            failed=failed,
            num_pending=len(clips) - sum(num.values()),
            seconds=(self.clock.now() - began).total_seconds(),
            stopped=outcome.stopped,
            canceled=outcome.canceled,
        )
        return Rendered(summary=summary, gpus=self.gpus)


@dataclass
class Mailbox:
    """A channel that keeps what it gets."""

    name: str = "webhook"
    got: list[JsonDict] = field(default_factory=list)
    refuses: int = 0
    unsure: int = 0

    def send(self, body: bytes, *, payload: JsonDict) -> None:
        if self.refuses:
            self.refuses -= 1
            raise NotDelivered("the host answered 503")
        self.got.append(payload)
        if self.unsure:
            self.unsure -= 1
            raise Unsure("no answer")

    @property
    def events(self) -> list[tuple[str, str | None]]:
        return [(each["event"], each["manifest"]) for each in self.got]


class MortalJournal(Journal):
    """Of a process that may be gone before it has written the end."""

    def end(self, entry: Any, *, now: datetime, rendered: Rendered | None) -> None:
        import sys

        if not isinstance(sys.exc_info()[1], Crash):
            super().end(entry, now=now, rendered=rendered)


def read_rows(found: Found) -> dict[str, float]:
    rows: dict[str, float] = {}
    findings = []
    for n, line in enumerate(Path(found.address).read_text().splitlines()):
        clip_id, _, seconds = line.partition(" ")
        if seconds.replace(".", "").isdigit():
            rows[clip_id] = float(seconds)
        else:
            findings.append(Finding(n, "prompt", repr(seconds), "a text"))
    if findings:
        raise ManifestError(found.address, findings)
    return rows


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@dataclass
class Studio:
    """An inbox, an output and a mailbox in a folder; nightlies are started over them."""

    folder: Path
    clock: SimClock
    settings: NightlySettings
    renderer: SimRenderer
    mailbox: Mailbox = field(default_factory=Mailbox)

    def drop(self, name: str, rows: Mapping[str, float | str] | Sequence[float], *, at: datetime | None = None) -> Path:
        """A manifest in the inbox, written now unless a moment is given."""
        listed = rows if isinstance(rows, Mapping) else {f"{name}-{n}": seconds for n, seconds in enumerate(rows)}
        path = Path(self.settings.inbox) / f"{name}.parquet"
        path.write_text("".join(f"{clip_id} {seconds}\n" for clip_id, seconds in listed.items()))
        stamp = (at or self.clock.now() - timedelta(minutes=5)).timestamp()
        os.utime(path, (stamp, stamp))
        return path

    def nightly(self, *, channels: Sequence[Channel] | None = None) -> Nightly:
        notes = open_store(f"{self.settings.output}/_nightly")
        return Nightly(
            self.settings,
            inbox=open_store(self.settings.inbox),
            output=open_store(self.settings.output),
            renderer=self.renderer,
            clock=self.clock,
            journal=MortalJournal(notes),
            outbox=Outbox(
                notes,
                channels=(self.mailbox,) if channels is None else channels,
                clock=self.clock,
                inbox=self.settings.inbox,
                output=self.settings.output,
            ),
            check_lease=lambda: None,
        )

    def run(self) -> Report:
        return self.nightly().run()

    def rendered(self, name: str) -> set[str]:
        return set(self.renderer.memory.of(name).records)


def studio(folder: Path, *, at: str, **settings: Any) -> Studio:
    """`at`: in UTC. Nights are 22:00-06:00 in Berlin unless `window` and `timezone` say otherwise."""
    (folder / "inbox").mkdir()
    (folder / "output").mkdir()
    clock = SimClock(utc(at))
    window = Window(hours=settings.pop("window", "22:00-06:00"), timezone=settings.pop("timezone", "Europe/Berlin"))
    render = RunSettings(
        manifest="-",
        output=str(folder / "output"),
        weights="builtin",
        model=small_model(),
        media=MEDIA,
        storage=StorageSettings(),
        parallel=ParallelSettings(),
        cluster=ClusterSettings(),
        retry=RetrySettings(),
        lease=LeaseSettings(),
    )
    return Studio(
        folder=folder,
        clock=clock,
        settings=NightlySettings(
            inbox=str(folder / "inbox"), output=str(folder / "output"), window=window, render=render, **settings
        ),
        renderer=SimRenderer(clock=clock, memory=Memory()),
    )
