"""A denoise-step cache on the foal, an experiment that stayed one (docs/lab.md): what it saves and what it costs.

Where a forward's first layer adds nearly what it added when all layers last ran, what the others added then is added
again (the way of TeaCache and of First-Block-Cache).
"""

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.layers import Sequence
from model.renderer import Latents, Renderer, RenderRequest
from model.shapes import clip_shape
from model.text import build_text_encoder
from model.weights import LocalWeights
from tests.bench.figures import Figure
from tests.configured import load_model

WEIGHTS = LocalWeights(str(Path(__file__).parents[2] / "model" / "foal" / "weights"))
PROMPTS = ("A red circle bounces on a white background.", "A blue square stays still on a black background.")
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


def render(model: ModelConfig, prompt: str, *, threshold: float | None) -> tuple[Latents, float, float]:
    """Latents, CPU seconds and the share of forwards that were skipped."""
    renderer = Renderer.load(model, WEIGHTS, device="cpu")
    encoder = build_text_encoder(model, WEIGHTS)
    text, negative = encoder.encode([prompt, model.sampling.negative_prompt])
    shape = clip_shape(model, resolution="64P", ratio="16:9", duration_s=3)
    request = RenderRequest(
        text=text,
        negative=negative if model.is_guided else None,
        video_latent=shape.video_latent,
        audio_latent=shape.audio_latent,
        seed=1,
        steps=model.steps,
        guidance=None,
        image_latent=None,
    )
    block = renderer.stages[0].block
    cached = None
    if threshold is not None:
        cached = CachedLayers(list(block.layers), threshold=threshold, texts=2 if model.first_stage == "base" else 1)
        block.layers = nn.ModuleList([cached])
    began = time.process_time()
    latents = renderer.render(request)
    return latents, time.process_time() - began, cached.skipped / cached.forwards if cached else 0.0


def figures() -> dict[str, Figure]:
    torch.set_num_threads(1)
    found: dict[str, Figure] = {}
    for name, thresholds in THRESHOLDS.items():
        model = load_model(name)
        plain = [render(model, prompt, threshold=None) for prompt in PROMPTS]
        for threshold in thresholds:
            cached = [render(model, prompt, threshold=threshold) for prompt in PROMPTS]
            gain = sum(seconds for _, seconds, _ in plain) / sum(seconds for _, seconds, _ in cached)
            skipped = sum(share for _, _, share in cached) / len(cached)
            at = f"{name}, {model.steps} steps, threshold {threshold:g}:"
            found[f"{at} forwards skipped"] = Figure(value=100 * skipped, unit="%")
            found[f"{at} a clip's denoising against none"] = Figure(value=gain, unit="x")
            for kind in ("video", "audio"):
                far = [_far(getattr(a[0], kind), getattr(b[0], kind)) for a, b in zip(cached, plain, strict=True)]
                found[f"{at} {kind} latents, relative L2"] = Figure(value=sum(far) / len(far), unit="")
    return found


def _far(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).norm() / expected.norm())
