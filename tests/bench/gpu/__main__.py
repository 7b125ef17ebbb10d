"""`make bench-gpu`: the 15B model with random weights on one card. Needs torch and safetensors, no package of ours.

Exit code 2 and one line where there is no GPU. `--small --device cpu` runs all of it on a model of a few kilobytes.
"""

import argparse
import datetime
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from model.fp8 import CAPABILITY
from pipeline.planning.cards import CARDS
from tests.bench.gpu import measuring, models, page
from tests.bench.gpu.measuring import Card, Measured, Way
from tests.bench.gpu.targets import Target, targets

FOLDER = Path(__file__).parents[3] / "docs" / "benchmarks"


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-gpu ARGS=...", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--small", action="store_true", help="a tiny model, to see that all of this runs")
    parser.add_argument("--only", nargs="*", help="clips: 256P 540P 1080P")
    parser.add_argument("--ways", nargs="*", help="'bfloat16, eager' and the like; all where none is named")
    parser.add_argument("--peak", type=float, help="TFLOP/s dense bfloat16 of a card that is not known")
    parser.add_argument("--compiler", default="inductor", help="backend of torch.compile")
    parser.add_argument("--out", type=Path, default=FOLDER)
    return parser.parse_args(words)


def card_of(device: str, peak: float | None) -> Card:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
    words = set(re.split(r"\W+", name.upper()))  # NVIDIA A100-SXM4-80GB
    known = [each.tflops for each in CARDS.values() if words & set(each.names)]
    tflops = peak if peak is not None else next(iter(known), None)
    return Card(device=device, name=name, peak_flops=None if tflops is None else tflops * 1e12)


@torch.inference_mode()
def measure(chosen: Sequence[Target], ways: Sequence[Way], *, card: Card, small: bool, command: str) -> page.Results:
    measured: list[Measured] = []
    errors: dict[str, float] = {}
    expected = None
    for fp8 in dict.fromkeys(way.fp8 for way in ways):
        weights = models.random_weights(chosen[0].model.transformer, fp8=fp8, device=card.device)
        for way in (way for way in ways if way.fp8 == fp8):
            for target in chosen:
                for part, config in measuring.stages(target):
                    alike = [m for m in measured if (m.stage, m.way) == (part, way.name)]  # the same first stage
                    found = (
                        replace(alike[0], target=target.name)
                        if alike
                        else measuring.measure_stage(target, part, config, weights, way=way, card=card)
                    )
                    _tell(found)
                    measured.append(found)
            got = measuring.velocity(chosen[0], weights, way=way, card=card)
            expected = got if expected is None else expected
            errors[way.name] = measuring.relative_error(got, expected)
        del weights
    for target in chosen:
        measured.append(measuring.measure_decode(target, card=card, small=small))
        _tell(measured[-1])
    return page.Results(
        command=command,
        date=datetime.datetime.now(datetime.UTC).strftime("%d %B %Y"),
        torch=torch.__version__,
        card=card,
        targets=tuple(chosen),
        measured=tuple(measured),
        errors=errors,
        attention={target.name: measuring.attention_seconds(target, card=card) for target in chosen},
        is_small=small,
    )


def _tell(found: Measured) -> None:
    print(f"{found.target}, {found.stage}, {found.way}: {found.seconds:.3f} s", flush=True)


def main(words: Sequence[str]) -> int:
    asked = arguments(words)
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU here: make bench-gpu needs one (ARGS='--small --device cpu' runs it on a tiny model)")
        return 2
    card = card_of(asked.device, asked.peak)
    card = replace(card, repeats=1) if asked.small else card
    chosen = [each for each in targets(small=asked.small) if not asked.only or each.name in asked.only]
    every = [Way(fp8=fp8, compiler=compiler) for fp8 in (False, True) for compiler in (None, asked.compiler)]
    ways = [way for way in every if not asked.ways or way.name in asked.ways]
    if card.is_gpu and torch.cuda.get_device_capability(card.device) < CAPABILITY:
        ways = [way for way in ways if not way.fp8]
    if not chosen or not ways:
        print(f"nothing to measure: clips are 256P, 540P, 1080P, ways {', '.join(way.name for way in every)}")
        return 2
    command = f"make bench-gpu ARGS={shlex.quote(shlex.join(words))}" if words else "make bench-gpu"
    results = measure(chosen, ways, card=card, small=asked.small, command=command)
    written = page.write(results, asked.out)
    print("\n".join(page.lines(results)))
    print("written to " + " and ".join(path.name for path in written))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
