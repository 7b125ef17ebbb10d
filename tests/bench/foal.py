"""The foal's denoising, for benches that need trained weights."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from model.config import ModelConfig
from model.renderer import Renderer
from model.request import Latents, RenderRequest
from model.shapes import clip_shape
from model.text import build_text_encoder
from model.transformer import Transformer
from model.weights import LocalWeights

WEIGHTS = LocalWeights(str(Path(__file__).parents[2] / "model" / "foal" / "weights"))
PROMPTS = ("A red circle bounces on a white background.", "A blue square stays still on a black background.")


def denoised(model: ModelConfig, prompt: str, *, change: Callable[[Transformer], None] | None = None) -> Latents:
    """Of a clip of 3 s at 64P, by the first stage after `change`."""
    renderer = Renderer.load(model, WEIGHTS, device="cpu")
    text, negative = build_text_encoder(model, WEIGHTS).encode([prompt, model.sampling.negative_prompt])
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
    if change is not None:
        change(renderer.stages[0])
    return renderer.render(request)


def far(got: Tensor, expected: Tensor) -> float:
    """Relative L2."""
    return float((got - expected).norm() / expected.norm())


def mean_far(got: list[Latents], expected: list[Latents], kind: str) -> float:
    """Of `video` or `audio` of several clips."""
    errors = [far(getattr(a, kind), getattr(b, kind)) for a, b in zip(got, expected, strict=True)]
    return sum(errors) / len(errors)
