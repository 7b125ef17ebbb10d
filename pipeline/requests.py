"""What a rank is asked to render: a clip and its conditions, or the smallest clip, to warm up. Imports torch."""

import torch
from torch import Tensor

from model.config import ModelConfig
from model.renderer import RenderRequest
from model.shapes import ClipShape, clip_shape
from pipeline.types import Clip

WARM_UP_TOKENS = 4


def request_of(clip: Clip, *, text: Tensor, negative: Tensor, image: Tensor | None) -> RenderRequest:
    return RenderRequest(
        text=text,
        negative=negative,
        video_latent=clip.shape.video_latent,
        audio_latent=clip.shape.audio_latent,
        seed=clip.seed,
        steps=clip.steps,
        guidance=clip.guidance,
        image_latent=image,
    )


def smallest_shape(model: ModelConfig) -> ClipShape:
    shapes = (
        clip_shape(model, resolution=resolution, ratio=ratio, duration_s=min(model.durations_s))
        for resolution, ratios in model.sizes.items()
        for ratio in ratios
    )
    return min(shapes, key=lambda shape: shape.num_tokens)


def warm_up_request(model: ModelConfig) -> RenderRequest:
    shape = smallest_shape(model)
    text = torch.zeros(WARM_UP_TOKENS, model.transformer.text_in_channels)
    return RenderRequest(
        text=text,
        negative=text,
        video_latent=shape.video_latent,
        audio_latent=shape.audio_latent,
        seed=0,
        steps=1,
        guidance=None,
        image_latent=None,
    )
