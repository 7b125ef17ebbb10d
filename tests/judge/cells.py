"""The cells of the table: what is wanted of each group of clips, and what was measured."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model.foal.judge import Verdict
from model.foal.scenes import SHAPES
from tests.judge.counting import pair_auc, timing
from tests.judge.prompts import Asked

ASPECTS = ("colour", "background", "motion", "sound")
Judged = Sequence[tuple[Asked, Verdict]]


@dataclass(frozen=True, kw_only=True)
class Cell:
    name: str
    value: float
    unit: str = ""
    least: float | None = None  # wanted; neither: only reported
    most: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.least is None and self.most is None:
            return None
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    @property
    def wanted(self) -> str:
        limits = [("at least", self.least), ("at most", self.most)]
        return " and ".join(f"{words} {limit:g}{self.unit}" for words, limit in limits if limit is not None)

    @property
    def measured(self) -> str:
        value = f"{self.value:.1f}" if self.unit == " %" else f"{self.value:.3g}"
        return f"{value}{self.unit}" + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True, kw_only=True)
class Goals:
    """What the two columns of the table want; None: reported only."""

    accuracy: float | None = None  # per cent, of colour, background, motion and sound class each
    auc: float | None = None
    within: float | None = None  # per cent
    median_ms: float | None = None
    p: float | None = None


BASE = Goals(accuracy=95, auc=0.95, within=80, median_ms=60, p=0.01)
DISTILLED = Goals(accuracy=93, auc=0.9, within=75)
DRAWN = Goals(accuracy=99, auc=0.99, within=99, median_ms=30, p=0.01)  # else judge or codec are at fault


def _right(judged: Judged, aspect: str) -> int:
    return sum(getattr(verdict, aspect) == getattr(asked.scene, aspect) for asked, verdict in judged)


def accuracy(judged: Judged, aspect: str, *, least: float | None) -> Cell:
    right = _right(judged, aspect)
    name = "sound class" if aspect == "sound" else aspect
    share = 100 * right / len(judged)
    return Cell(name=name, value=share, unit=" %", least=least, note=f"{right} of {len(judged)}")


def accuracies(judged: Judged, *, goal: float | None) -> list[Cell]:
    return [accuracy(judged, aspect, least=goal) for aspect in ASPECTS]


def shape_cells(judged: Judged, *, goal: float | None) -> list[Cell]:
    """AUC of each pair, and how often the likest shape is the one asked for."""
    by_shape = [(asked.scene.shape, verdict) for asked, verdict in judged]
    present = {shape for shape, _ in by_shape}
    pairs = [pair for pair in itertools.combinations(SHAPES, 2) if present.issuperset(pair)]
    cells = [
        Cell(name=f"{one} told from {other} (AUC)", value=pair_auc(one, other, by_shape), least=goal)
        for one, other in pairs
    ]
    return [*cells, accuracy(judged, "shape", least=None)]


def contact_cells(judged: Judged, goals: Goals) -> list[Cell]:
    """Over the clips that were asked to sound at each bounce; one without bounces counts as two misses."""
    asked_for = [verdict for asked, verdict in judged if asked.scene.sound in ("beep", "thud")]
    if not asked_for:
        return []
    found = timing([(verdict.contact_times_s, verdict.onset_times_s) for verdict in asked_for])
    note = f"{found.num_contacts} contacts in {len(asked_for)} clips"
    share = Cell(
        name="contact to sound within 120 ms", value=100 * found.share_within, unit=" %", least=goals.within, note=note
    )
    return [
        share,
        Cell(name="contact to sound, median", value=1000 * found.median_s, unit=" ms", most=goals.median_ms),
        Cell(name="the same with its sign (sound late: positive)", value=1000 * found.median_signed_s, unit=" ms"),
        Cell(name="sounds shuffled between clips are as good, p", value=found.p, most=goals.p),
        Cell(name="sounds a contact", value=found.onsets_a_contact),
    ]


def text_cells(judged: Judged, goals: Goals) -> list[Cell]:
    return [
        *accuracies(judged, goal=goals.accuracy),
        *shape_cells(judged, goal=goals.auc),
        *contact_cells(judged, goals),
    ]


def image_cells(judged: Judged) -> list[Cell]:
    """Prompts that name neither colour nor shape: those of the first frame are to stay."""
    wanted = {"colour": 95, "shape": 85, "motion": 90, "background": None, "sound": None}
    return [accuracy(judged, aspect, least=least) for aspect, least in wanted.items()]


def distilled_cells(judged: Judged, *, steps: int, guided: bool) -> list[Cell]:
    return [
        *text_cells(judged, DISTILLED),
        Cell(name="steps", value=steps, least=1, most=8),
        Cell(name="forwards a step (2: guided)", value=2 if guided else 1, most=1),
    ]


def edge_cell(ratio: float) -> Cell:
    return Cell(name="edges against the codec's own round trip", value=ratio, unit=" x", least=0.7, most=1.3)


def sharp_cells(judged: Judged, base: Judged, *, sharper: float) -> list[Cell]:
    """Against the same prompts at 64P, an accuracy may be one clip lower ("unchanged"), and the AUC of a pair 0.02."""
    slack = 100 / len(judged)
    before = {cell.name: cell for cell in [*accuracies(base, goal=None), *shape_cells(base, goal=None)]}
    cells = [Cell(name="edges sharper than enlarged ones", value=sharper, unit=" x", least=1.5)]
    for cell in [*accuracies(judged, goal=None), *shape_cells(judged, goal=None)]:
        least = before[cell.name].value - (slack if cell.unit else 0.02)
        cells.append(Cell(name=cell.name, value=cell.value, unit=cell.unit, least=math.floor(least * 1e4) / 1e4))
    return cells


def mistakes(judged: Judged) -> Mapping[str, Counter[tuple[str, str]]]:
    """Aspect -> (asked for, judged) -> clips, of those that differ."""
    found: dict[str, Counter[tuple[str, str]]] = {}
    for aspect in (*ASPECTS, "shape"):
        pairs = ((getattr(asked.scene, aspect), getattr(verdict, aspect) or "none") for asked, verdict in judged)
        found[aspect] = Counter((wanted, got) for wanted, got in pairs if wanted != got)
    return found
