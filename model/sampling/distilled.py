"""The distilled stage: few steps, one forward each, no guidance; the clean prediction is noised again for the next."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor

from model.config import DistilledConfig
from model.sampling.base import OnStep, hold_first_frame
from model.sampling.given_sound import GivenSound
from model.sampling.prediction import Velocity
from model.sampling.schedules import flow_sigmas


def renoise(velocity: Tensor, sample: Tensor, noise: Tensor, *, sigma: float, next_sigma: float) -> Tensor:
    """From noise level `sigma` to `next_sigma`, through the clean sample that `velocity` points to."""
    clean = sample - sigma * velocity
    return next_sigma * noise + (1 - next_sigma) * clean


def sample_distilled(
    velocity: Velocity,
    *,
    video: Tensor,
    audio: Tensor,
    text: Tensor,
    noise: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    config: DistilledConfig,
    image_latent: Tensor | None = None,
    sound: GivenSound | None = None,
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """Noise `video` [1, C, T, H, W] and `audio` [1, L, Ca] -> clean latents.

    `noise` gives fresh (video, audio) noise for every step, the last included (where its weight is 0). A given
    `sound` is held, as in the base stage.
    """
    sigmas = flow_sigmas(steps, shift=config.flow_shift, start=config.flow_start)[0].tolist()
    for done, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        video = hold_first_frame(video, image_latent)
        audio = audio if sound is None else sound.at(sigma)
        ((video_v, audio_v),) = velocity(video, audio, [text], sigma)
        video_noise, audio_noise = next(noise)
        video = renoise(video_v, video, video_noise, sigma=sigma, next_sigma=next_sigma)
        audio = (
            renoise(audio_v, audio, audio_noise, sigma=sigma, next_sigma=next_sigma) if sound is None else sound.clean
        )
        if on_step is not None:
            on_step(done + 1, steps)
    return hold_first_frame(video, image_latent), audio
