"""Kinds of card, and whether a group of a model fits them. Pure."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from model.config import ModelConfig
from model.memory import HEADROOM, UNCERTAINTY, CardMemory, Fit, card_memory, tp_sizes
from model.placing import RESIDENT, Placing, StagePlace, stage_places
from model.shapes import ClipShape

GB = 10**9
ACCELERATOR = "accelerator_type:"  # what Ray calls a node's kind of card among its resources


@dataclass(frozen=True, kw_only=True)
class Card:
    """A kind of card; `tflops` dense bfloat16 by its maker's data sheet."""

    gb: int
    tflops: float
    names: tuple[str, ...]  # as Ray knows it
    fp8: bool = True  # whether it multiplies 8-bit floats

    @property
    def num_bytes(self) -> int:
        return self.gb * GB


CARDS = {
    "a10g": Card(gb=24, tflops=70, names=("A10G",), fp8=False),
    "l4": Card(gb=24, tflops=121, names=("L4",)),
    "a100-40": Card(gb=40, tflops=312, names=("A100", "A100-40G"), fp8=False),
    "l40s": Card(gb=48, tflops=362, names=("L40S",)),
    "a100": Card(gb=80, tflops=312, names=("A100", "A100-80G"), fp8=False),
    "h100": Card(gb=80, tflops=989, names=("H100",)),
    "h200": Card(gb=141, tflops=989, names=("H200",)),
}


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """Whether the model fits one kind of card at one group size, and what is to be said of it."""

    fit: Fit
    note: str  # empty where it fits


def fitting(
    model: ModelConfig,
    shapes: Collection[ClipShape],
    *,
    card: str,
    tp: int | None,
    placing: Placing = RESIDENT,
) -> Fitting:
    """`tp` None: the smallest size that fits, `no` if none does."""
    if model.fp8 and not CARDS[card].fp8:
        return Fitting(fit="no", note=no_fp8(card))
    sizes = {size: card_memory(model, tp=size, shapes=shapes, placing=placing) for size in tp_sizes(model)}
    holding = [size for size, memory in sizes.items() if memory.fit(CARDS[card].num_bytes) != "no"]
    size = tp if tp is not None else next(iter(holding), max(sizes))
    memory = sizes.get(size) or card_memory(model, tp=size, shapes=shapes, placing=placing)
    fit = memory.fit(CARDS[card].num_bytes)
    large = _too_large(model, memory, card, holding) + _smaller_placings(model, shapes, card=card, placing=placing)
    notes = {"fits": "", "tight": _tight(memory, card), "no": large}
    return Fitting(fit=fit, note=notes[fit])


def unknown_card(name: str) -> str:
    known = ", ".join(f"{known} ({card.gb} GB)" for known, card in CARDS.items())
    return f"card is {name!r}, expected one of {known}"


def no_fp8(kind: str) -> str:
    able = ", ".join(name for name, card in CARDS.items() if card.fp8)
    return f"model.fp8: {kind} cannot multiply 8-bit floats; cards that can: {able}"


def _tight(memory: CardMemory, card: str) -> str:
    return (
        f"tight: tp={memory.tp} needs {_needed(memory, card)}, and with {UNCERTAINTY:.0%} more activations it "
        "does not fit"
    )


def _too_large(model: ModelConfig, memory: CardMemory, card: str, holding: list[int]) -> str:
    sizes = f"{card} holds it at tp={' or '.join(map(str, holding))}" if holding else f"no tp size fits {card}"
    cards = [name for name, each in CARDS.items() if memory.fit(each.num_bytes) != "no"]
    at = f"tp={memory.tp}"
    return f"{model.name} does not fit {card} at {at}, which needs {_needed(memory, card)}; {sizes}; " + (
        f"cards that hold {at}: {', '.join(cards)}" if cards else f"no known card holds {at}"
    )


def _smaller_placings(model: ModelConfig, shapes: Collection[ClipShape], *, card: str, placing: Placing) -> str:
    """With which places of the stages that take less of a card it fits."""
    if placing.stages in ("offloaded", "disk"):
        return ""
    others = [stages for stages in stage_places(model) if stages not in ("resident", placing.stages)]
    found = _placings(model, shapes, others, card=card, placing=placing)
    return f"; on {card} it fits with {found}" if found else ""


def fewer_cards(
    model: ModelConfig, shapes: Collection[ClipShape], *, card: str, cards: int, placing: Placing = RESIDENT
) -> str:
    """With which other places of the stages so few cards are enough; empty where they never are."""
    others = [stages for stages in stage_places(model) if stages != placing.stages]
    found = _placings(model, shapes, others, card=card, placing=placing, most=cards)
    return f"; {cards} x {card} {'is' if cards == 1 else 'are'} enough with {found}" if found else ""


def _placings(
    model: ModelConfig,
    shapes: Collection[ClipShape],
    others: Collection[StagePlace],
    *,
    card: str,
    placing: Placing,
    most: int | None = None,
) -> str:
    """Those of `others` with which it fits, on `most` cards at most, and at which sizes."""
    found = []
    for stages in others:
        other, groups = replace(placing, stages=stages), 2 if stages == "apart" else 1
        memories = (card_memory(model, tp=size, shapes=shapes, placing=other) for size in tp_sizes(model))
        holding = (memory.tp for memory in memories if memory.fit(CARDS[card].num_bytes) != "no")
        sizes = [str(tp) for tp in holding if most is None or groups * tp <= most]
        if sizes:
            found.append(f"placing={stages} at tp={' or '.join(sizes)}" + (" (two groups)" if groups > 1 else ""))
    return " and with ".join(found)


def _needed(memory: CardMemory, card: str) -> str:
    usable = CARDS[card].gb * (1 - HEADROOM)
    return f"{memory.total / GB:.1f} GB a card, {usable:.1f} of its {CARDS[card].gb} GB usable"
