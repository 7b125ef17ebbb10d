"""How long a run will take, what it weighs, and how sure that is: from earlier runs, else from FLOPs. Pure.

On GPUs the stages run side by side, and the slowest decides. On CPUs they share the cores: their sum counts, times what
earlier runs took of theirs.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeAlias

from model.memory import Fit, card_memory, smallest_fitting_tp
from model.placing import Placing
from pipeline.errors import ConfigError
from pipeline.planning.cards import CARDS, Fitting, fewer_cards, fitting
from pipeline.planning.history import RunHistory
from pipeline.planning.measured import Measured, crew_seconds
from pipeline.planning.planned import PlannedClips
from pipeline.planning.target import Target, alike, card_of
from pipeline.settings import ParallelSettings
from pipeline.shares import pace, shared_out
from pipeline.types import Stage

Basis: TypeAlias = Literal["measured", "scaled", "flops", "none"]
SPREAD: Mapping[Basis, float] = {"measured": 0.25, "scaled": 0.5, "flops": 1.0, "none": 0.0}  # either way, as a factor
WELL_MEASURED, NARROW = 5, 0.15  # so many clips of each kind measured: a narrower range
NUM_STARTS = 5  # runs whose start is averaged, the newest
SETUP_S, LOAD_BYTES_S = 60.0, 1e9  # before any run: Ray, imports, warm-up; weights read a second and rank
TP_EFFICIENCY = {1: 1.0, 2: 0.9, 4: 0.8, 8: 0.65}  # of a rank's speed; assumed, for cards with NVLink
DEFAULT_CARD = "h100"
AS_FAST = ("resident", "apart")  # weights are there when they are needed


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of all clips that are to be rendered."""

    basis: Basis
    hardware: str
    gpus: int  # of all crews, and those without one; 0: on CPUs
    cards: Mapping[str, int]  # of those by kind of crew
    groups: int
    enlarging_groups: int  # of those, where super-resolution has its own
    tp: int | None
    seconds: float | None  # of the whole run; None: no estimate; 0: nothing to render
    low_s: float | None
    high_s: float | None
    startup_s: float
    a_clip_s: float | None  # of one group, on average; where stages have their own: of all groups, summed up
    gpu_hours: float | None
    cost: float | None
    num_bytes: int
    bytes_measured: bool
    fit: Fit | None  # of a group on these cards; None: on CPUs, or a card that is not known
    notes: tuple[str, ...]


def estimate(planned: PlannedClips, history: Sequence[RunHistory], target: Target) -> Estimate:
    """`history` of the same model, newest first."""
    runs = alike(history, target)
    measured = Measured(planned, runs)
    if not planned.to_render:
        return _nothing(planned, measured, target)
    if measured.kinds:
        return _from_runs(planned, runs, measured, target)
    card = target.card or (DEFAULT_CARD if planned.model.compute_dtype == "bfloat16" else None)
    if card is not None:
        return _from_flops(planned, measured, target, card=card)
    return _made(
        planned,
        measured,
        target,
        basis="none",
        hardware="CPUs",
        gpus=0,
        groups=shared_out(1, ParallelSettings(), enlarging=planned.enlarging_share(target.placing)),
        tp=target.tp,
        startup_s=0.0,
        working_s=None,
        notes=("no estimate before a first run on CPUs: a run leaves its times in the output, and plan reads them",),
    )


def _nothing(planned: PlannedClips, measured: Measured, target: Target) -> Estimate:
    return _made(
        planned,
        measured,
        target,
        basis="none",
        hardware="",
        gpus=0,
        groups={},
        tp=target.tp,
        startup_s=0.0,
        working_s=0.0,
        notes=("nothing to render",),
    )


def _from_runs(planned: PlannedClips, runs: list[RunHistory], measured: Measured, target: Target) -> Estimate:
    newest = runs[0]
    on_gpus = newest.hardware.device == "cuda"
    hardware = f"{newest.hardware}, as in run {newest.run_id}"
    card = target.card or card_of(newest)
    fitted = None
    if card is not None and not measured.is_complete:
        fitted = fitting(planned.model, planned.shapes, card=card, tp=newest.tp, placing=target.placing)
    if fitted is not None and fitted.fit == "no":
        return _not_fitting(planned, measured, target, hardware=hardware, tp=newest.tp, fitted=fitted)
    wants = target.wants(ranks=newest.tp, newest=newest)
    enlarging = planned.enlarging_share(target.placing)
    least = 2 if enlarging else 1
    total = max(newest.groups + newest.enlarging_groups, least)
    gpus = (target.gpus or sum(wants.cards(total).values())) if on_gpus else 0
    total = wants.groups_on(gpus, least=least) if on_gpus else total
    groups = shared_out(total, _as_before(newest, total), enlarging=enlarging)
    encoders, finishers = (each.count for each in wants.beside)
    counts: dict[Stage, int] = {"encode": encoders, **groups, "finish": finishers}
    crews = crew_seconds(measured.totals(), groups=groups, encoders=encoders, finishers=finishers)
    if on_gpus:
        slowest = max(crews, key=lambda name: crews[name])
        others_s = sum(crews[name] * counts[name] for name in crews if name != slowest)
        working_s = crews[slowest] + others_s / planned.to_render
        notes = [f"the slowest stage is {slowest}; the others run beside it"]
    else:
        shared = measured.ratio(groups=groups)
        working_s = sum(crews.values()) * shared
        notes = [
            f"the stages share the cores: earlier runs took {shared:.2f} of their sum",
            "if the machine is as free as it was then",
        ]
    starts = runs[:NUM_STARTS]
    return _made(
        planned,
        measured,
        target,
        basis="measured" if measured.is_complete else "scaled",
        hardware=hardware,
        gpus=gpus,
        cards=wants.cards(total) if on_gpus else {},
        groups=groups,
        tp=newest.tp,
        startup_s=fmean(run.startup_s + run.closing_s for run in starts),
        working_s=working_s,
        fit=fitted.fit if fitted is not None else ("fits" if on_gpus else None),
        notes=(*notes, *measured.notes(), *([fitted.note] if fitted is not None and fitted.note else [])),
    )


def _as_before(newest: RunHistory, total: int) -> ParallelSettings:
    """Groups are shared out as they were, if there are as many."""
    same = newest.enlarging_groups and newest.groups + newest.enlarging_groups == total
    return ParallelSettings(enlarging_groups=newest.enlarging_groups if same else None)


def _from_flops(planned: PlannedClips, measured: Measured, target: Target, *, card: str) -> Estimate:
    known, model, stages = CARDS[card], planned.model, target.placing.stages
    fitted = fitting(model, planned.shapes, card=card, tp=target.tp, placing=target.placing)
    tp = target.tp or smallest_fitting_tp(
        model, card_bytes=known.num_bytes, shapes=planned.shapes, placing=target.placing
    )
    if tp is None or fitted.fit == "no":
        return _not_fitting(planned, measured, target, hardware=_named(card), tp=tp, fitted=fitted)
    wants = target.wants(ranks=tp)
    enlarging = planned.enlarging_share(target.placing)
    least = 2 if enlarging else 1
    gpus = target.gpus or sum(wants.cards(least).values())
    try:
        total = wants.groups_on(gpus, least=least)
    except ConfigError as error:
        cards = gpus - wants.cards_beside
        other = fewer_cards(model, planned.shapes, card=card, cards=cards, placing=target.placing)
        raise ConfigError(f"{error}{other}") from error
    groups = shared_out(total, ParallelSettings(), enlarging=enlarging)
    used: dict[Stage, int] = {stage: min(count, planned.to_render) for stage, count in groups.items()}
    a_card = known.tflops * 1e12 * target.utilisation
    speeds = {"group": a_card * TP_EFFICIENCY[tp] * tp * pace(used, enlarging=enlarging)}
    speeds |= {each.kind: a_card * each.count for each in wants.beside if each.cards}  # a layer after the other
    flops = _crew_flops(planned, speeds)
    seconds = {crew: flops[crew] / speed for crew, speed in speeds.items()}
    slowest = max(seconds, key=lambda crew: seconds[crew])
    return _made(
        planned,
        measured,
        target,
        basis="flops",
        hardware=_named(card),
        fit=fitted.fit,
        gpus=gpus,
        cards=wants.cards(total),
        groups=groups,
        tp=tp,
        startup_s=SETUP_S + _weights_bytes(planned, tp=tp, placing=target.placing) / LOAD_BYTES_S,
        working_s=seconds[slowest],
        notes=(
            f"no run of this model on {card} was measured: FLOPs at {target.utilisation:.0%} of the card's peak"
            + (f", {TP_EFFICIENCY[tp]:.0%} of that for {tp} ranks a group" if tp > 1 else ""),
            *([] if stages in AS_FAST else [f"what placing.stages={stages} costs in time is not counted"]),
            *_crew_notes(speeds, slowest),
            *([fitted.note] if fitted.note else []),
        ),
    )


def _crew_flops(planned: PlannedClips, crews: Collection[str]) -> dict[str, int]:
    """Of all clips, by who is on cards; what would be done on CPUs is the groups'."""
    flops = dict.fromkeys(("group", *crews), 0)
    for each in planned.left:
        a_clip = planned.flops(each)
        parts = {"group": a_clip.denoise, "encoder": a_clip.text + a_clip.image, "finisher": a_clip.decode}
        for crew, count in parts.items():
            flops[crew if crew in crews else "group"] += count * each.to_render
    return flops


def _crew_notes(crews: Collection[str], slowest: str) -> Iterator[str]:
    parts = {"encoder": "text encoder", "finisher": "decoder"}
    for crew, name in parts.items():
        if crew not in crews:
            yield f"the {name}'s work is counted as if done on the groups' cards; on CPUs it is far slower"
    if slowest in parts:
        yield f"the {parts[slowest]}'s cards take longest; groups wait for them"


def _named(card: str) -> str:
    return f"{card} ({CARDS[card].tflops:g} TFLOP/s dense bfloat16, {CARDS[card].gb} GB)"


def _not_fitting(
    planned: PlannedClips, measured: Measured, target: Target, *, hardware: str, tp: int | None, fitted: Fitting
) -> Estimate:
    return _made(
        planned,
        measured,
        target,
        basis="none",
        hardware=hardware,
        gpus=0,
        groups={},
        tp=tp,
        startup_s=0.0,
        working_s=None,
        fit="no",
        notes=(fitted.note,),
    )


def _weights_bytes(planned: PlannedClips, *, tp: int, placing: Placing) -> int:
    """That a rank reads."""
    memory = card_memory(planned.model, tp=tp, shapes=planned.shapes, placing=placing)
    return memory.held if placing.stages == "apart" else sum(memory.weights.values())


def _made(
    planned: PlannedClips,
    measured: Measured,
    target: Target,
    *,
    basis: Basis,
    hardware: str,
    gpus: int,
    cards: Mapping[str, int] | None = None,
    groups: Mapping[Stage, int],
    tp: int | None,
    startup_s: float,
    working_s: float | None,
    notes: tuple[str, ...],
    fit: Fit | None = None,
) -> Estimate:
    total = sum(groups.values())
    spread = NARROW if basis == "measured" and measured.fewest >= WELL_MEASURED else SPREAD[basis]
    seconds = startup_s + working_s if working_s is not None else None
    gpu_hours = seconds * gpus / 3600 if seconds is not None and gpus else None
    return Estimate(
        basis=basis,
        hardware=hardware,
        gpus=gpus,
        cards=cards or {},
        groups=total,
        enlarging_groups=groups.get("enlarge", 0),
        tp=tp,
        seconds=seconds,
        low_s=startup_s + working_s / (1 + spread) if working_s is not None else None,  # no less than the start
        high_s=seconds * (1 + spread) if seconds is not None else None,
        startup_s=startup_s,
        a_clip_s=working_s * total / planned.to_render if working_s is not None and planned.to_render else None,
        gpu_hours=gpu_hours,
        cost=gpu_hours * target.price if gpu_hours is not None and target.price is not None else None,
        num_bytes=round(sum(measured.num_bytes(each) * each.to_render for each in planned.left)),
        bytes_measured=bool(measured.kinds),
        fit=fit,
        notes=notes,
    )
