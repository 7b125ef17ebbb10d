"""The super-resolution stage: the base stage's video enlarged, noised a little and denoised again; sound is held.

n batch (1), C latent channels, T H W latent frames and cells, L audio latents.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from model.config import SuperResolutionConfig
from model.sampling.base import OnStep, hold_first_frame
from model.sampling.prediction import Velocity
from model.sampling.schedules import flow_sigmas
from model.sampling.unipc import UniPC

NUM_LEVELS = 1000
BETAS = (0.00085, 0.012)


def signal_levels(betas: tuple[float, float] = BETAS) -> Tensor:
    """float64 [1000]: how much of the signal is left at each noise level, 1 the cleanest, 0 at the last."""
    noise = torch.linspace(betas[0] ** 0.5, betas[1] ** 0.5, NUM_LEVELS, dtype=torch.float64).square()
    levels: Tensor = (1 - noise).cumprod(0).sqrt()
    first, last = levels[0].item(), levels[-1].item()
    return (levels - last) * (first / (first - last))


def start_video(base: Tensor, noise: Tensor, *, config: SuperResolutionConfig) -> Tensor:
    """Base latents [1, C, T, h, w] enlarged to the noise's [1, C, T, H, W] and mixed with it."""
    enlarged: Tensor = functional.interpolate(base, size=noise.shape[2:], mode="trilinear", align_corners=True)
    signal = float(signal_levels(config.noise_betas)[config.noise_level])
    return enlarged * signal + noise * math.sqrt(1 - signal**2)


def start_audio(base: Tensor, noise: Tensor, *, noise_scale: float) -> Tensor:
    return noise_scale * noise + (1 - noise_scale) * base


def frame_guidance(config: SuperResolutionConfig, num_frames: int, *, like: Tensor) -> Tensor:
    """Guidance of each latent frame, to be multiplied with [1, C, T, H, W]."""
    scales = like.new_full((num_frames,), config.video_guidance)
    scales[: config.guidance_first_frames] = config.video_guidance_first
    return scales[:, None, None]


def sample_super_resolution(
    velocity: Velocity,
    *,
    video: Tensor,
    audio: Tensor,
    text: Tensor,
    negative: Tensor | None,
    config: SuperResolutionConfig,
    image_latent: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Start samples (see `start_video`, `start_audio`) -> clean video latent. Guided where `negative` is given."""
    sigmas, _ = flow_sigmas(config.steps, shift=config.flow_shift, start=config.flow_start)
    texts = [text] if negative is None else [text, negative]
    solver = UniPC(sigmas)
    for done, sigma in enumerate(sigmas[:-1].tolist()):
        video = hold_first_frame(video, image_latent)
        (video_v, _), *rest = velocity(video, audio, texts, sigma)
        for video_n, _ in rest:
            video_v = video_n + frame_guidance(config, video.shape[2], like=video_v) * (video_v - video_n)
        video = solver.step(video_v, video)
        if on_step is not None:
            on_step(done + 1, config.steps)
    return hold_first_frame(video, image_latent)
