"""A denoise-step cache on the foal, an experiment that stayed one (docs/lab.md): what it saves and what it costs.

Where a forward's first layer adds nearly what it added when all layers last ran, what the others added then is added
again (the way of TeaCache and of First-Block-Cache).
"""

import time

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.layers import Sequence
from model.request import Latents
from model.transformer import Transformer
from tests.bench.figures import Figure
from tests.bench.foal import PROMPTS, denoised, mean_far
from tests.configured import load_model

THRESHOLDS = {"foal": (0.02, 0.05, 0.1, 0.2), "foal_distill": (0.2,)}


class CachedLayers(nn.Module):
    """In the place of all layers. A guided step's two forwards come by turns and have a memory each."""

    def __init__(self, layers: list[nn.Module], *, threshold: float, texts: int) -> None:
        super().__init__()
        self.first, self.others = layers[0], layers[1:]
        self.threshold = threshold
        self.kept: list[tuple[Tensor, Tensor] | None] = [None] * texts
        self.forwards = self.skipped = 0

    def forward(self, x: Tensor, sequence: Sequence) -> Tensor:
        turn = self.forwards % len(self.kept)
        self.forwards += 1
        after: Tensor = self.first(x, sequence)
        added, kept = after - x, self.kept[turn]
        if kept is not None and (added - kept[0]).abs().mean() < self.threshold * kept[0].abs().mean():
            self.skipped += 1
            return after + kept[1]
        out = after
        for layer in self.others:
            out = layer(out, sequence)
        self.kept[turn] = (added, out - after)
        return out


def render(model: ModelConfig, *, threshold: float | None) -> tuple[list[Latents], float, float]:
    """Latents of all prompts, CPU seconds and the share of forwards that were skipped."""
    caches: list[CachedLayers] = []

    def put_cache(transformer: Transformer) -> None:
        if threshold is not None:
            layers = list(transformer.block.layers)
            caches.append(CachedLayers(layers, threshold=threshold, texts=2 if model.is_guided else 1))
            transformer.block.layers = nn.ModuleList(caches[-1:])

    began = time.process_time()
    latents = [denoised(model, prompt, change=put_cache) for prompt in PROMPTS]
    seconds = time.process_time() - began
    return latents, seconds, sum(each.skipped / each.forwards for each in caches) / len(PROMPTS)


def figures() -> dict[str, Figure]:
    torch.set_num_threads(1)
    found: dict[str, Figure] = {}
    for name, thresholds in THRESHOLDS.items():
        model = load_model(name)
        plain, plain_s, _ = render(model, threshold=None)
        for threshold in thresholds:
            cached, seconds, skipped = render(model, threshold=threshold)
            at = f"{name}, {model.steps} steps, threshold {threshold:g}:"
            found[f"{at} forwards skipped"] = Figure(value=100 * skipped, unit="%")
            found[f"{at} a clip's denoising against none"] = Figure(value=plain_s / seconds, unit="x")
            for kind in ("video", "audio"):
                error = mean_far(cached, plain, kind)
                found[f"{at} {kind} latents, relative L2"] = Figure(value=error, unit="")
    return found
