"""What was measured, as a page and as JSON."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.gpu.measuring import Card, Measured
from tests.bench.gpu.targets import Target

UTILISATION = 0.6  # the goal, in the compiled stages


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    command: str
    date: str
    torch: str
    card: Card
    targets: tuple[Target, ...]
    measured: tuple[Measured, ...]
    errors: dict[str, float]  # relative L2 of the first stage's velocity against bfloat16, eager
    attention: dict[str, dict[str, float]]  # target -> kernel -> seconds a layer
    is_small: bool

    def utilisation(self, each: Measured) -> float | None:
        if self.card.peak_flops is None or not each.flops:
            return None
        return each.flops / each.seconds / self.card.peak_flops

    def clip_s(self, target: str, way: str) -> float:
        """All Transformer stages of a way, and the decode."""
        return sum(m.seconds for m in self.measured if m.target == target and (m.way == way or not m.flops))

    def ways(self) -> list[str]:
        return list(dict.fromkeys(m.way for m in self.measured if m.flops))


def write(results: Results, folder: Path) -> tuple[Path, Path]:
    name = "gpu-" + "-".join("".join(c if c.isalnum() else " " for c in results.card.name.lower()).split())
    page, data = folder / f"{name}.md", folder / f"{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines(results)) + "\n", encoding="utf-8")
    data.write_text(json.dumps(_values(results), indent=1) + "\n", encoding="utf-8")
    return page, data


def lines(results: Results) -> Iterator[str]:
    """A small model's seconds are those of clips of a few pixels: there are no goals for them."""
    card, small = results.card, results.is_small
    yield f"# {card.name}: {'a small model' if small else 'the 15B model'} with random weights"
    yield ""
    yield f"`{results.command}`, torch {results.torch}, {results.date}."
    if small:
        yield "Clips of a few pixels: that all of it runs is to be seen here, and nothing of the 15B model's speed."
    if card.peak_flops is not None:
        yield f"Utilisation is of {card.peak_flops / 1e12:g} TFLOP/s dense bfloat16; FLOPs by `model/cost.py`."
    yield ""
    duration_s = results.targets[0].model.default_duration_s
    yield f"Seconds for a clip of {duration_s} s, first stage, super-resolution and decode, without text and files:"
    yield ""
    yield from _table(
        ["", *results.ways(), *([] if small else ["goal"])], map(partial(_clip, results), results.targets)
    )
    yield ""
    goal = "" if small else f" (goal: {UTILISATION:.0%} utilisation or more, compiled)"
    yield f"By stage{goal}; *first*: what the first step took beyond a later one;"
    yield "*said* is the sum of `model/memory.py` for this stage alone:"
    yield ""
    rows = [_stage(results, each) for each in results.measured]
    names = [name for name in rows[0] if any(row[name] for row in rows)]  # not what this machine cannot tell
    yield from _table(names, ([row[name] for name in names] for row in rows))
    yield ""
    errors = [f"{way} {error:.1e}" for way, error in results.errors.items() if error]
    if errors:
        yield f"Velocity of the first stage at its first step against bfloat16, eager, relative L2: {', '.join(errors)}"
        yield ""
    yield "Global attention of one layer, milliseconds:"
    yield ""
    for name, kernels in results.attention.items():
        yield f"* {name}: " + ", ".join(f"{kernel} {1e3 * s:.2f}" for kernel, s in kernels.items())


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield "| --- " * len(names) + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _clip(results: Results, target: Target) -> list[str]:
    seconds = [f"{results.clip_s(target.name, way):.2f}" for way in results.ways()]
    return [target.name, *seconds, *([] if results.is_small else [f"under {target.goal_s:g}"])]


def _stage(results: Results, each: Measured) -> dict[str, str]:
    """Column -> cell, empty where it is not known."""
    used = results.utilisation(each)
    unit, size = ("MB", 1e6) if results.is_small else ("GB", 1e9)
    return {
        "clip": each.target,
        "stage": each.stage,
        "way": each.way,
        "seconds": f"{each.seconds:.3f}",
        "utilisation": "" if used is None else f"{used:.0%}",
        "first, s": f"{each.first_s:.1f}" if each.first_s >= 0.05 else "under 0.1",
        f"peak {unit}": "" if each.peak_bytes is None else f"{each.peak_bytes / size:.1f}",
        f"said {unit}": f"{each.said_bytes / size:.1f}" if each.said_bytes else "",
    }


def _values(results: Results) -> dict[str, Any]:
    measured = [{**dataclasses.asdict(m), "utilisation": results.utilisation(m)} for m in results.measured]
    clips = {
        target.name: {"goal_s": target.goal_s, **{way: results.clip_s(target.name, way) for way in results.ways()}}
        for target in results.targets
    }
    plain = {name: getattr(results, name) for name in ("command", "date", "torch", "errors", "attention")}
    return {**plain, "card": dataclasses.asdict(results.card), "clips": clips, "measured": measured}
