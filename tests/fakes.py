"""A fleet in one process, with a clock of its own: it really encodes, renders and finishes (bytes, not pictures).

Faults are scheduled by counted events: "the third order of a finisher", "the first start of a group".
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipeline.errors import StoreError
from pipeline.fleet import (
    CONDITIONS_LOST,
    LATENTS_LOST,
    Condition,
    Done,
    EncodeOrder,
    EnlargeOrder,
    Event,
    FinishOrder,
    Gpu,
    Joined,
    Lost,
    Order,
    Ready,
    Refused,
    RenderOrder,
    Text,
    conditions_of,
)
from pipeline.types import Clip, ClipFailure, Finished, GroupStatus, ImageRef, MediaFile, Probe, Stage
from tests import clips

What = Literal["lose", "lose_start", "evict", "refuse", "trip", "store", "inputs", "draft"]
SECONDS: dict[Stage, float] = {"encode": 1.0, "render": 10.0, "enlarge": 6.0, "finish": 4.0}
START_S = 3.0
GROUPS = ("render", "enlarge")


def make_clip(
    clip_id: str, *, row: int = 0, prompt: str | None = None, picture: str | None = None, large: bool = False
) -> Clip:
    """A 3 s clip of the small model; its prompt is its own unless one is given. `large`: super-resolution follows."""
    image = None
    if picture is not None:
        digest = hashlib.sha256(picture.encode()).hexdigest()
        image = ImageRef(uri=None, data=picture.encode(), identity=digest, height=300, width=400)
    own = f"a prompt for {clip_id}" if prompt is None else prompt
    made = clips.make_clip(clip_id, row=row, seed=row, prompt=own, negative_prompt="blurry", image=image)
    if not large:
        return made
    channels, frames, height, width = made.shape.video_latent
    shape = replace(
        made.shape, video_latent=(channels, frames, 2 * height, 2 * width), first_latent=made.shape.video_latent
    )
    return replace(made, shape=shape)


def make_clips(count: int, *, large: bool = False) -> tuple[Clip, ...]:
    return tuple(make_clip(f"clip-{row}", row=row, large=large) for row in range(count))


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Happens to the `nth` order (from 0) that a stage is given; `lose_start` to its `nth` start."""

    stage: Stage
    nth: int
    what: What


@dataclass
class FakeCrew:
    stage: Stage
    state: Literal["down", "starting", "idle", "busy"] = "down"
    due_s: float = 0.0
    answer: Event | None = None
    order: Order | None = None
    since_s: float = 0.0
    node: str = ""
    gpu: Gpu | None = None
    placed: bool = True


@dataclass
class FakeFleet:
    """Crews of each stage; `poison` are clip ids and prompts that kill whoever takes them on."""

    groups_wanted: int = 1
    enlargers: int = 0  # groups of super-resolution's own; none: render groups do both
    encoders: int = 1
    finishers: int = 1
    faults: Sequence[Fault] = ()
    poison: Collection[str] = ()
    poison_enlarging: Collection[str] = ()  # clip ids that kill whoever enlarges them
    always_lost: Collection[str] = ()  # crew ids that never come up
    fatal_start: Mapping[str, str] = field(default_factory=dict)  # crew id -> error class
    nodes: Sequence[str] = ("node-0",)  # each crew has its own, while that is not avoided
    bad_nodes: Collection[str] = ()  # whatever is started there is lost with its first order
    gpus: int = 0  # of each node; a group takes the first that is free
    bad_gpus: Collection[Gpu] = ()  # whatever has one is lost with its first order
    joins_at_s: Sequence[float] = ()  # when another group fits
    unplaced: Collection[str] = ()  # crew ids that find no room
    room: Callable[[float], int] = lambda now_s: 1000  # for so many groups, at a time
    seconds: Mapping[Stage, float] = field(default_factory=lambda: dict(SECONDS))
    now_s: float = 0.0
    offers: list[tuple[str, Order]] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    avoided: frozenset[str] = frozenset()
    avoided_gpus: frozenset[Gpu] = frozenset()
    closed: bool = False
    most_unfinished: int = 0
    most_drafted: int = 0

    def __post_init__(self) -> None:
        groups = {"render": self.groups_wanted, "enlarge": self.enlargers}
        counts: dict[Any, int] = {"encode": self.encoders, **groups, "finish": self.finishers}
        self._crews = {f"{stage}-{n}": FakeCrew(stage) for stage, count in counts.items() for n in range(count)}
        self._orders: Counter[Stage] = Counter()
        self._starts: Counter[Stage] = Counter()
        self._unfinished = self._drafted = 0
        self._joined: list[str] = []

    def clock(self) -> float:
        return self.now_s

    def crews(self) -> Mapping[str, Stage]:
        return {crew_id: crew.stage for crew_id, crew in self._crews.items()}

    def start(self, crew_id: str, /) -> None:
        crew = self._crews[crew_id]
        assert crew.state == "down", f"{crew_id} is {crew.state}"
        fault = self._fault(crew.stage, self._starts[crew.stage], "lose_start")
        self._starts[crew.stage] += 1
        self.starts.append(crew_id)
        allowed = [node for node in self.nodes if node not in self.avoided] or self.nodes
        crew.node = allowed[list(self._crews).index(crew_id) % len(allowed)]
        crew.gpu = self._free_gpu(crew.node) if crew.stage in GROUPS else None
        answer: Event = Ready(crew_id=crew_id, nodes=(crew.node,), gpus=(crew.gpu,) if crew.gpu else ())
        if fault or crew_id in self.always_lost or crew_id in self.fatal_start:
            answer = Lost(crew_id=crew_id, reason="did not come up", fatal=self.fatal_start.get(crew_id))
        up = [each for each in self._crews.values() if each.stage in GROUPS and each.state != "down" and each.placed]
        crew.placed = crew_id not in self.unplaced and not (crew.stage in GROUPS and len(up) >= self.room(self.now_s))
        if not crew.placed:
            answer = Lost(crew_id=crew_id, reason="there is no room", kind="unplaced")
        self._begin(crew, "starting", START_S, answer)

    def _free_gpu(self, node: str) -> Gpu | None:
        there = [Gpu(node=node, number=str(number)) for number in range(self.gpus)]
        taken = {crew.gpu for crew in self._crews.values() if crew.state != "down"} | self.avoided_gpus
        return next((gpu for gpu in there if gpu not in taken), None)

    def offer(self, crew_id: str, order: Order, /) -> None:
        crew = self._crews[crew_id]
        assert crew.state == "idle", f"{crew_id} is {crew.state}"
        kinds: tuple[What, ...] = ("lose", "evict", "refuse", "trip", "store", "inputs", "draft")
        fault = self._fault(crew.stage, self._orders[crew.stage], *kinds)
        self._orders[crew.stage] += 1
        self.offers.append((crew_id, order))
        crew.order, crew.since_s = order, self.now_s
        self._begin(crew, "busy", self.seconds[crew.stage], self._answer(crew_id, crew, order, fault))

    def wait(self, timeout_s: float, /) -> list[Event]:
        if len(self._joined) < len(self.joins_at_s) and self.now_s >= self.joins_at_s[len(self._joined)]:
            self._joined.append(f"joined-{len(self._joined)}")
            self._crews[self._joined[-1]] = FakeCrew("render")
            return [Joined(crew_id=self._joined[-1], stage="render")]
        waiting = [crew for crew in self._crews.values() if crew.answer is not None]
        due_s = min((crew.due_s for crew in waiting), default=self.now_s + timeout_s)
        if due_s > self.now_s + timeout_s:
            self.now_s += timeout_s
            return []
        self.now_s = max(self.now_s, due_s)
        return [self._end(crew) for crew in waiting if crew.due_s <= self.now_s]

    def groups(self) -> tuple[GroupStatus, ...]:
        return tuple(
            GroupStatus(group_id=crew_id, state="busy" if crew.state == "busy" else "ready")
            for crew_id, crew in self._crews.items()
            if crew.stage in GROUPS
        )

    def avoid(self, nodes: Collection[str], gpus: Collection[Gpu], /) -> None:
        self.avoided, self.avoided_gpus = frozenset(nodes), frozenset(gpus)

    def release(self, crew_id: str, /) -> None:
        crew = self._crews[crew_id]
        assert crew.state == "idle", f"{crew_id} is {crew.state}"
        crew.state = "down"
        self.released.append(crew_id)

    def give_up(self, crew_id: str, /) -> None:
        crew = self._crews[crew_id]
        assert crew.order is None
        crew.state, crew.answer = "down", None
        self.given_up.append(crew_id)

    def close(self) -> None:
        self.closed = True

    def _fault(self, stage: Stage, nth: int, *kinds: What) -> What | None:
        return next((f.what for f in self.faults if (f.stage, f.nth) == (stage, nth) and f.what in kinds), None)

    def _begin(self, crew: FakeCrew, state: Literal["starting", "busy"], seconds: float, answer: Event) -> None:
        crew.state, crew.due_s, crew.answer = state, self.now_s + seconds, answer

    def _end(self, crew: FakeCrew) -> Event:
        answer = crew.answer
        assert answer is not None
        drafts = isinstance(crew.order, RenderOrder) and crew.order.drafts
        if isinstance(answer, Done) and crew.stage in GROUPS:
            self._drafted += 1 if drafts else -1 if crew.stage == "enlarge" else 0
            self.most_drafted = max(self.most_drafted, self._drafted)
            self._unfinished += not drafts
            self.most_unfinished = max(self.most_unfinished, self._unfinished)
        if isinstance(answer, Done) and crew.stage == "finish":
            self._unfinished -= 1
        crew.state = "down" if isinstance(answer, Lost) else "idle"
        crew.answer = crew.order = None
        return answer

    def _answer(self, crew_id: str, crew: FakeCrew, order: Order, fault: What | None) -> Event:
        stage = crew.stage
        names = set(map(_named, order.conditions)) if isinstance(order, EncodeOrder) else {order.clip.clip_id}
        if fault == "evict":
            return Lost(crew_id=crew_id, reason="its node is gone", kind="preempted", node=crew.node)
        names |= {f"enlarging {name}" for name in names} if stage == "enlarge" else set()
        poison = {*self.poison, *(f"enlarging {name}" for name in self.poison_enlarging)}
        is_bad = crew.node in self.bad_nodes or crew.gpu in self.bad_gpus
        if fault == "lose" or names & poison or is_bad:
            return Lost(crew_id=crew_id, reason="killed", node=crew.node, gpu=crew.gpu)
        if fault is not None:
            kinds = {"refuse": "ClipError", "trip": "RuntimeError", "store": "StoreError"}
            lost = LATENTS_LOST if stage == "finish" or fault == "draft" else CONDITIONS_LOST
            kind = kinds.get(fault, lost)
            retriable = fault in ("trip", "inputs", "draft")
            return Refused(
                crew_id=crew_id, failure=ClipFailure(stage=stage, kind=kind, message=fault, retriable=retriable)
            )
        return Done(crew_id=crew_id, result=_carry_out(order), seconds=self.seconds[stage])


def _carry_out(order: Order) -> object:
    """What the real actors would make, in a few bytes."""
    if isinstance(order, EncodeOrder):
        return tuple(hashlib.sha256(_named(each).encode()).digest() for each in order.conditions)
    if isinstance(order, EnlargeOrder):
        return _made(_bytes(order.draft), order.conditions)
    if isinstance(order, RenderOrder):
        made = _made(str(order.clip.seed).encode(), order.conditions)
        enlarges = order.clip.shape.first_latent is not None and not order.drafts
        return _made(made, order.conditions) if enlarges else made
    return finished(order)


def _made(start: bytes, conditions: Mapping[str, object]) -> bytes:
    parts = [role.encode() + _bytes(handle) for role, handle in sorted(conditions.items())]
    return hashlib.sha256(b"".join([start, *parts])).digest()


def made_of(clip: Clip) -> str:
    """SHA-256 of the file that a clip is delivered as, whoever has made it."""
    handles = {role: hashlib.sha256(_named(each).encode()).digest() for role, each in conditions_of(clip).items()}
    latents = _carry_out(RenderOrder(clip=clip, conditions=handles))
    return hashlib.sha256(_bytes(latents)).hexdigest()


def _named(condition: Condition) -> str:
    return condition.prompt if isinstance(condition, Text) else condition.identity


def finished(order: FinishOrder) -> Finished:
    data = _bytes(order.latents)
    name = f"clips/{order.clip.clip_id}.{order.attempt}.mp4"
    file = MediaFile(name=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    probe = Probe(
        width=80, height=46, num_frames=36, fps=12.0, video_duration_s=3.0, audio_duration_s=3.0, sample_rate_hz=24000
    )
    return Finished(attempt=order.attempt, files={"mp4": file}, probe=probe, seconds={"decode": 1.0})


def _bytes(handle: object) -> bytes:
    assert isinstance(handle, bytes), f"not a handle of this fleet: {handle!r}"
    return handle


@dataclass
class MemoryRecorder:
    """Keeps records in memory and refuses what must not happen; the `broken_at`-th write is refused by storage."""

    broken_at: int | None = None
    records: dict[str, Finished] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, list[ClipFailure]] = field(default_factory=dict)
    logs: dict[str, tuple[str, list[str]]] = field(default_factory=dict)  # attempt -> clip id, lines
    writes: int = 0

    def record(self, clip: Clip, *, finished: Finished, num_attempts: int, seconds: dict[str, float]) -> None:
        self._write()
        assert clip.clip_id not in self.records
        assert clip.clip_id not in self.failures
        assert seconds["render"] > 0
        self.records[clip.clip_id], self.attempts[clip.clip_id] = finished, num_attempts

    def fail(self, clip: Clip, *, failures: Sequence[ClipFailure]) -> None:
        self._write()
        assert clip.clip_id not in self.records
        assert clip.clip_id not in self.failures
        self.failures[clip.clip_id] = list(failures)

    def log(self, clip: Clip, *, attempt: str, lines: Sequence[str]) -> None:
        assert attempt not in self.logs
        self.logs[attempt] = (clip.clip_id, list(lines))

    def _write(self) -> None:
        self.writes += 1
        if self.broken_at is not None and self.writes > self.broken_at:
            raise StoreError("cannot write: no space left")
