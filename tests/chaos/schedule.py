"""Which faults a storm has, and after which counted event each one comes: drawn from the seed alone.

Pure. What the faults do is in `faults.py`; when the events happen is the machine's business.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

After = Literal["record", "upload"]  # written objects, as storage sees them: below records/, below clips/
CrewFault = Literal[
    "kill_rank", "stop_rank", "kill_finisher", "stop_finisher", "kill_ffmpeg", "kill_encoder", "stop_encoder",
    "kill_node", "stop_node", "drain_node", "break_node", "kill_driver",
]  # fmt: skip
StorageFault = Literal["refuse", "status_503", "time_out", "lose_answer", "gone_a_minute"]
Kind = CrewFault | StorageFault

# In a storm of 40 clips, and in one of 200.
COUNTS: dict[Kind, tuple[int, int]] = {
    "kill_rank": (1, 6),
    "stop_rank": (1, 4),
    "kill_finisher": (1, 4),
    "stop_finisher": (0, 1),
    "kill_ffmpeg": (0, 3),
    "kill_encoder": (1, 3),
    "stop_encoder": (0, 2),
    "kill_node": (0, 2),
    "stop_node": (1, 2),
    "drain_node": (0, 1),
    "break_node": (0, 1),
    "kill_driver": (1, 3),
    "refuse": (1, 3),
    "status_503": (1, 4),
    "time_out": (1, 3),
    "lose_answer": (1, 4),
    "gone_a_minute": (0, 1),
}
LARGE = 200  # clips; from half of that on the counts grow with them
STORAGE: frozenset[Kind] = frozenset(get_args(StorageFault))
FIRST, LAST = 0.03, 0.85  # of the clips, between which faults come: all of them are to be survived
UPLOADS = 3  # of each clip: mp4, wav, jpg
MOST_TIMES = 4  # requests in a row that one fault of storage hits


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Comes after the `count`-th event. `pick`, of 0 to 1, says which one of those there are."""

    kind: Kind
    after: After
    count: int
    pick: float
    times: int = 1

    def __str__(self) -> str:
        return f"{self.kind} after {self.after} {self.count}"


def draw(seed: int, *, num_clips: int, only: Collection[Kind] = ()) -> tuple[Fault, ...]:
    """In the order in which they come; no two of one sort at the same moment. `only`: one of each of these kinds."""
    dice = random.Random(f"storm {seed}")
    counts = {kind: _count(kind, num_clips) for kind in COUNTS} if not only else dict.fromkeys(only, 1)
    crew = _shuffled(dice, {kind: count for kind, count in counts.items() if kind not in STORAGE})
    storage = _shuffled(dice, {kind: count for kind, count in counts.items() if kind in STORAGE})
    faults = [*_spread(dice, crew, num_clips), *_spread(dice, storage, num_clips)]
    return tuple(sorted(faults, key=lambda fault: (_clips(fault), fault.kind)))


def _shuffled(dice: random.Random, counts: dict[Kind, int]) -> list[Kind]:
    drawn = [kind for kind, count in counts.items() for _ in range(count)]
    dice.shuffle(drawn)
    return drawn


def _count(kind: Kind, num_clips: int) -> int:
    few, many = COUNTS[kind]
    return few if num_clips < LARGE / 2 else round(many * num_clips / LARGE)


def _spread(dice: random.Random, kinds: list[Kind], num_clips: int) -> list[Fault]:
    """One in each of as many equal stretches of the run."""
    first, length = FIRST * num_clips, (LAST - FIRST) * num_clips
    faults = []
    for n, kind in enumerate(kinds):
        clips = first + length * (n + dice.random()) / len(kinds)
        after: After = dice.choice(("record", "upload"))
        count = max(1, int(clips * (UPLOADS if after == "upload" else 1)))
        fault = Fault(kind=kind, after=after, count=count, pick=dice.random(), times=dice.randint(1, MOST_TIMES))
        faults.append(fault)
    return faults


def _clips(fault: Fault) -> float:
    return fault.count / (UPLOADS if fault.after == "upload" else 1)
