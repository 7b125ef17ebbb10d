"""Trains the foal's super-resolution Transformer: 64P latents, enlarged and noised, to the latents of the 128P picture.

The stage's sampler starts from e = a*enlarged + sqrt(1-a^2)*noise and walks the whole schedule, so what it sees on its
way is (1-s)*clean + s*e. That is what it is trained on.
"""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from model.codecs.foal import FoalVideoCodec
from model.config import SuperResolutionConfig, TransformerConfig
from model.foal.batches import Clips, Noise
from model.foal.codec_training import CHANNELS
from model.foal.flow import export_transformer, hold_given, initialise, mixed, predict, velocity_error
from model.foal.training import Recipe, Task
from model.sampling.schedules import flow_sigmas
from model.sampling.super_resolution import start_audio, start_video
from model.text import FoalTextEncoder
from model.transformer import Transformer

SUPER_RESOLUTION = TransformerConfig(
    num_layers=5,
    hidden_size=128,
    head_dim=24,
    num_heads_q=4,
    num_heads_kv=4,
    video_in_channels=CHANNELS * 4,
    audio_in_channels=64,
    text_in_channels=192,
    mm_layers=(0, 4),
    gelu7_layers=(0,),
    local_attn_layers=(),
    coords_style="v1",
    prediction="clean",
    place_frequencies=8,
)
SAMPLING = SuperResolutionConfig(steps=1, noise_level=10)  # 0.1 of noise; the release's 220 is 0.54, more than an edge
FLAWS = 0.2  # greatest size of noise on the 64P latents: the first stage's are never exact
NOISIEST = 80  # greatest noise level in training, 0.3 of noise: with 0.1 alone edges came out wider


class SuperResolutionTask(Task):
    def __init__(
        self, recipe: Recipe, *, codec: FoalVideoCodec, text: FoalTextEncoder, weights: Path, device: str
    ) -> None:
        self.recipe, self.weights = recipe, weights
        self.clips = Clips(
            seed=recipe.seed,
            size=recipe.batch_size,
            codec=codec,
            text=text,
            device=device,
            large=True,
            places="any",
        )
        self.model: Transformer = Transformer(SUPER_RESOLUTION, dtype=torch.float32)
        initialise(self.model, seed=recipe.seed)
        self.model.to(device)

    def losses(self, step: int, average: nn.Module) -> dict[str, Tensor]:
        batch, noise = self.clips.draw(step)
        large, weight = batch.large, batch.large_weight
        assert large is not None  # asked for, and its weight with it
        assert weight is not None
        flawed = batch.video + FLAWS * noise.uniform(len(large), 1, 1, 1, 1) * noise.like(batch.video)
        level = SAMPLING.noise_level + int(noise.uniform(1) * (NOISIEST + 1 - SAMPLING.noise_level))
        noisy = dataclasses.replace(SAMPLING, noise_level=level)
        start = start_video(flawed, noise.like(large), config=noisy)
        heard = start_audio(batch.audio, noise.like(batch.audio), noise_scale=SAMPLING.audio_noise_scale)
        sigma = _levels(len(large), noise)
        video = hold_given(mixed(large, start, sigma), large, batch)
        clean, _ = predict(self.model, video, heard, batch.text, sigma)
        return {"video": (weight * velocity_error(clean, large, sigma))[:, :, batch.num_given :].mean()}

    def export(self, average: nn.Module) -> None:
        export_transformer(average, self.weights / "128p_sr")


def _levels(count: int, noise: Noise) -> Tensor:
    """From the sampler's own: [count] in (0, 1)."""
    own = flow_sigmas(SAMPLING.steps, shift=SAMPLING.flow_shift, start=SAMPLING.flow_start)[0][:-1].float()
    u = noise.uniform(count)
    return own.to(u)[(u * len(own)).long()]
