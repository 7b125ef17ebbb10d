"""What a run leaves for later plans: `history/<run_id>.json`, how long clips of each kind took, and on what.

A few kilobytes whatever the number of clips. Nothing but a plan reads it; a run that cannot write it is no worse.
"""

import json
import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from model.placing import DecodePlace, Placing, StagePlace, TextPlace
from pipeline.errors import StoreError
from pipeline.planning.cards import ACCELERATOR
from pipeline.results import RunFacts
from pipeline.room import crews_wanted
from pipeline.settings import RunSettings
from pipeline.store import Store
from pipeline.summary import Snapshot
from pipeline.types import Clip, ClipFailure, Finished, JsonDict

HISTORY = "history"
FORMAT = 1
NUM_READ = 30  # runs, the newest
NUM_KINDS = 100  # of a run, the commonest
STAGES = ("condition", "render", "enlarge", "decode", "encode", "upload")  # enlarge: apart from render, or 0
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What decides how long a clip takes. The CPU is that of the machine that drove the run."""

    device: str  # of the ranks: cpu or cuda
    cards: Mapping[str, int] = field(default_factory=dict)  # kind -> how many the cluster had; empty on CPUs
    cpu: str
    cores: int  # of all nodes, as Ray counts them; of this machine for a Ray of our own
    nodes: int

    def is_like(self, other: "Hardware") -> bool:
        """Whether a clip takes as long there: the same kind of card, or the same CPU with as many cores."""
        if self.device == "cuda":
            return other.device == "cuda" and set(self.cards) == set(other.cards)
        return (self.device, self.cpu, self.cores) == (other.device, other.cpu, other.cores)

    def __str__(self) -> str:
        if self.device == "cuda":
            return ", ".join(f"{count} x {kind}" for kind, count in self.cards.items())
        return f"{self.cores} CPU cores ({self.cpu})"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Clips that take the same time."""

    resolution: str
    ratio: str
    duration_s: int
    steps: int  # of the first stage
    guided: bool
    image: bool


@dataclass(frozen=True, kw_only=True)
class KindTimes:
    """Clips of one kind in one run, on average."""

    kind: Kind
    count: int
    seconds: Mapping[str, float]  # by stage
    num_bytes: float  # of a clip's files


@dataclass(frozen=True, kw_only=True)
class RunHistory:
    """One run."""

    run_id: str
    model: str
    model_hash: str
    hardware: Hardware
    versions: Mapping[str, str]
    tp: int
    groups: int
    threads: int
    encoders: int
    finishers: int
    num_rendered: int
    num_failed: int
    stopped: bool
    startup_s: float  # from the command's start until the first group was ready
    driving_s: float  # from then until the last clip was recorded
    closing_s: float  # what came after
    kinds: tuple[KindTimes, ...]
    stages: StagePlace = "resident"  # where they lay
    text: TextPlace = "cpu"
    text_cards: int = 1
    decode: DecodePlace = "cpu"
    enlarging_groups: int = 0  # beside `groups`, where stages were apart

    def lay_like(self, placing: Placing) -> bool:
        """Whether everything was where it is to be, as far as that decides times."""
        own = self._placing
        return (own.stages, own.text, own.encoder_cards, own.decode) == (
            placing.stages,
            placing.text,
            placing.encoder_cards,
            placing.decode,
        )

    @property
    def cards(self) -> int:
        """Of all crews; on CPUs ranks, which stand for them."""
        if self.hardware.device == "cpu":
            return (self.groups + self.enlarging_groups) * self.tp
        wants = crews_wanted(ranks=self.tp, encoders=self.encoders, finishers=self.finishers, placing=self._placing)
        return sum(wants.cards(self.groups + self.enlarging_groups).values())

    @property
    def _placing(self) -> Placing:
        return Placing(stages=self.stages, text=self.text, text_cards=self.text_cards, decode=self.decode)


def kind_of(clip: Clip) -> Kind:
    return Kind(
        resolution=clip.resolution,
        ratio=clip.ratio,
        duration_s=clip.duration_s,
        steps=clip.steps,
        guided=clip.negative_prompt is not None,
        image=clip.image is not None,
    )


class Recording(Protocol):
    """What is recorded to behind `RunTimes`."""

    def record(self, clip: Clip, *, finished: Finished, num_attempts: int, seconds: dict[str, float]) -> None: ...

    def fail(self, clip: Clip, *, failures: Sequence[ClipFailure]) -> None: ...

    def log(self, clip: Clip, *, attempt: str, lines: Sequence[str]) -> None: ...

    def refresh(self, snapshot: Snapshot) -> None: ...


class RunTimes:
    """A recorder that passes everything on and keeps sums of what it cost, by kind."""

    def __init__(self, recorder: Recording, *, began: float) -> None:
        """`began`: when the command did, by `time.monotonic`."""
        self._recorder, self._began = recorder, began
        self._placed_s = 0.0
        self._sums: dict[Kind, dict[str, float]] = {}
        self._num_failed = 0
        self._hardware: Hardware | None = None
        self._groups: Mapping[str, int] = {}
        self._tp = 0

    def placed(
        self, *, device: str, nodes: Sequence[Mapping[str, float]], groups: Mapping[str, int], tp: int, own: bool
    ) -> None:
        """What the run has, once that is known: groups by stage. `own`: a Ray of our own, whose CPUs are logical."""
        self._hardware, self._groups, self._tp = hardware_of(device, nodes, own=own), groups, tp
        self._placed_s = time.monotonic() - self._began

    def record(self, clip: Clip, *, finished: Finished, num_attempts: int, seconds: dict[str, float]) -> None:
        self._recorder.record(clip, finished=finished, num_attempts=num_attempts, seconds=seconds)
        sums = self._sums.setdefault(kind_of(clip), dict.fromkeys(("count", "bytes", *STAGES), 0.0))
        sums["count"] += 1
        sums["bytes"] += sum(file.size_bytes for file in finished.files.values())
        for stage in STAGES:
            sums[stage] += seconds.get(stage, 0.0)

    def fail(self, clip: Clip, *, failures: Sequence[ClipFailure]) -> None:
        self._num_failed += 1
        self._recorder.fail(clip, failures=failures)

    def log(self, clip: Clip, *, attempt: str, lines: Sequence[str]) -> None:
        self._recorder.log(clip, attempt=attempt, lines=lines)

    def refresh(self, snapshot: Snapshot) -> None:
        self._recorder.refresh(snapshot)

    def kinds(self) -> tuple[KindTimes, ...]:
        """The commonest first."""
        commonest = sorted(self._sums, key=lambda kind: -self._sums[kind]["count"])
        return tuple(_times(kind, self._sums[kind]) for kind in commonest[:NUM_KINDS])

    def leave(
        self, store: Store, *, facts: RunFacts, settings: RunSettings, last: Snapshot | None, seconds: float
    ) -> None:
        """Writes the run's file, `seconds` after the command began. Nothing where nothing was rendered."""
        if self._hardware is None or last is None or not self._sums:
            return
        startup_s = self._placed_s + last.elapsed_s - last.working_s
        measured = RunHistory(
            run_id=facts.run_id,
            model=facts.model,
            model_hash=facts.model_hash,
            hardware=self._hardware,
            versions=facts.versions,
            tp=self._tp,
            groups=self._groups["render"],
            enlarging_groups=self._groups["enlarge"],
            threads=settings.parallel.threads_per_rank,
            encoders=settings.cluster.num_encoders,
            finishers=settings.cluster.num_finishers,
            num_rendered=last.num_succeeded,
            num_failed=self._num_failed,
            stopped=last.stopping is not None,
            startup_s=round(startup_s, 3),
            driving_s=round(last.working_s, 3),
            closing_s=round(max(seconds - startup_s - last.working_s, 0.0), 3),
            kinds=self.kinds(),
            stages=settings.placing.stages,
            text=settings.placing.text,
            text_cards=settings.placing.text_cards,
            decode=settings.placing.decode,
        )
        try:
            store.put(f"{HISTORY}/{facts.run_id}.json", to_json(measured))
        except StoreError as error:
            log.warning("the run's times could not be kept for later plans: %s", error)


def _times(kind: Kind, sums: Mapping[str, float]) -> KindTimes:
    count = sums["count"]
    return KindTimes(
        kind=kind,
        count=int(count),
        seconds={stage: round(sums[stage] / count, 4) for stage in STAGES},
        num_bytes=round(sums["bytes"] / count),
    )


def hardware_of(device: str, nodes: Sequence[Mapping[str, float]], *, own: bool) -> Hardware:
    """From the resources that Ray tells of each node."""
    cards: dict[str, int] = {}
    for node in nodes if device == "cuda" else ():
        kind = next((name.removeprefix(ACCELERATOR) for name in node if name.startswith(ACCELERATOR)), "GPU")
        cards[kind] = cards.get(kind, 0) + int(node.get("GPU", 0))
    cores = (os.cpu_count() or 1) if own else int(sum(node.get("CPU", 0) for node in nodes))
    return Hardware(
        device=device,
        cards={kind: count for kind, count in cards.items() if count},
        cpu=cpu_name(),
        cores=cores,
        nodes=len(nodes),
    )


def cpu_name() -> str:
    """Of this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def to_json(measured: RunHistory) -> bytes:
    return json.dumps({"format": FORMAT} | asdict(measured), indent=1, allow_nan=False).encode() + b"\n"


def parse(data: bytes) -> RunHistory:
    """Raises ValueError, KeyError or TypeError for what is not one of ours."""
    values: JsonDict = json.loads(data)
    if values.pop("format") != FORMAT:
        raise ValueError("another format")
    kinds = tuple(KindTimes(**(each | {"kind": Kind(**each["kind"])})) for each in values.pop("kinds"))
    return RunHistory(hardware=Hardware(**values.pop("hardware")), kinds=kinds, **values)


def read_history(store: Store) -> list[RunHistory]:
    """The newest runs of an output, newest first; files that cannot be read are left out with a warning."""
    keys = sorted((each.key for each in store.list(HISTORY) if each.key.endswith(".json")), reverse=True)
    runs = []
    for key in keys[:NUM_READ]:
        data = store.get(key)
        try:
            runs.append(parse(data))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is no run's history: %s", store.where(key), error)
    return runs
