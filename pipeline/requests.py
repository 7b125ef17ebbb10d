"""What a rank is asked for: a clip with its conditions, or the smallest clip, to warm up. Imports torch."""

from collections.abc import Mapping

import torch
from torch import Tensor

from model.config import ModelConfig
from model.request import RenderRequest
from model.shapes import ClipShape, clip_shape
from pipeline.types import Clip

WARM_UP_TOKENS = 4


def request_of(clip: Clip, conditions: Mapping[str, Tensor]) -> RenderRequest:
    """`conditions` by the roles of `pipeline.fleet.conditions_of`."""
    return RenderRequest(
        text=conditions["text"],
        negative=conditions.get("negative"),
        video_latent=clip.shape.video_latent,
        first_latent=clip.shape.first_latent,
        audio_latent=clip.shape.audio_latent,
        seed=clip.seed,
        steps=clip.steps,
        guidance=clip.guidance,
        image_latent=conditions.get("image"),
        large_image_latent=conditions.get("large_image"),
        sound_latent=conditions.get("sound"),
    )


def smallest_shape(model: ModelConfig) -> ClipShape:
    """Of those that go through all the model's stages."""
    shapes = [
        clip_shape(model, resolution=resolution, ratio=ratio, duration_s=min(model.durations_s))
        for resolution, ratios in model.sizes.items()
        for ratio in ratios
    ]
    complete = [shape for shape in shapes if (shape.first_latent is None) == (model.super_resolution is None)]
    return min(complete or shapes, key=lambda shape: shape.num_tokens)


def warm_up_request(model: ModelConfig) -> RenderRequest:
    shape = smallest_shape(model)
    text = torch.zeros(WARM_UP_TOKENS, model.transformer.text_in_channels)
    return RenderRequest(
        text=text,
        negative=text if model.is_guided else None,
        video_latent=shape.video_latent,
        first_latent=shape.first_latent,
        audio_latent=shape.audio_latent,
        seed=0,
        steps=1,
        guidance=None,
        image_latent=None,
    )
