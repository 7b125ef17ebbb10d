"""What was measured, as a page and as JSON."""

import dataclasses
import json
from collections.abc import Iterator
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
    card = results.card
    yield f"# {card.name}: {'a small model' if results.is_small else 'the 15B model'} with random weights"
    yield ""
    yield f"`{results.command}`, torch {results.torch}, {results.date}."
    if card.peak_flops is not None:
        yield f"Utilisation is of {card.peak_flops / 1e12:g} TFLOP/s dense bfloat16; FLOPs by `model/cost.py`."
    yield ""
    yield "Seconds for a clip of 5 s, distilled first stage, super-resolution and decode, without text and files:"
    yield ""
    yield f"| | {' | '.join(results.ways())} | goal |"
    yield "| --- " * (len(results.ways()) + 2) + "|"
    for target in results.targets:
        told = [f"{results.clip_s(target.name, way):.2f}" for way in results.ways()]
        yield f"| {target.name} | {' | '.join(told)} | under {target.goal_s:g} |"
    yield ""
    yield f"By stage (goal: {UTILISATION:.0%} utilisation or more, compiled); *first*: what the first step took beyond"
    yield "a later one; *said* is the sum of `model/memory.py` for this stage alone:"
    yield ""
    yield "| clip | stage | way | seconds | utilisation | first, s | peak GB | said GB |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    yield from (_row(results, each) for each in results.measured)
    yield ""
    yield "Velocity of the first stage at its first step against bfloat16, eager, relative L2: " + ", ".join(
        f"{way} {error:.1e}" for way, error in results.errors.items()
    )
    yield ""
    yield "Global attention of one layer, milliseconds:"
    yield ""
    for name, kernels in results.attention.items():
        yield f"* {name}: " + ", ".join(f"{kernel} {1e3 * s:.2f}" for kernel, s in kernels.items())


def _row(results: Results, each: Measured) -> str:
    used = results.utilisation(each)
    cells = [
        each.target,
        each.stage,
        each.way,
        f"{each.seconds:.3f}",
        "" if used is None else f"{used:.0%}",
        f"{each.first_s:.1f}",
        "" if each.peak_bytes is None else f"{each.peak_bytes / 1e9:.1f}",
        f"{each.said_bytes / 1e9:.1f}" if each.said_bytes else "",
    ]
    return f"| {' | '.join(cells)} |"


def _values(results: Results) -> dict[str, Any]:
    measured = [{**dataclasses.asdict(m), "utilisation": results.utilisation(m)} for m in results.measured]
    clips = {
        target.name: {"goal_s": target.goal_s, **{way: results.clip_s(target.name, way) for way in results.ways()}}
        for target in results.targets
    }
    plain = {name: getattr(results, name) for name in ("command", "date", "torch", "errors", "attention")}
    return {**plain, "card": dataclasses.asdict(results.card), "clips": clips, "measured": measured}
