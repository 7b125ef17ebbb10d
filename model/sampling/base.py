"""The base stage: guided UniPC on video and audio together, from noise to clean latents.

n batch (1), C latent channels, T H W latent frames and cells, L audio latents.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from model.config import SamplingConfig
from model.sampling.given_sound import GivenSound
from model.sampling.prediction import Velocity
from model.sampling.schedules import flow_sigmas
from model.sampling.unipc import UniPC

OnStep = Callable[[int, int], None]  # (steps done, steps in all)


def with_guidance(sampling: SamplingConfig, guidance: float | None) -> tuple[float, float, float]:
    """(video early, video late, audio) scales; a clip's own `guidance` replaces early and audio and caps late."""
    if guidance is None:
        return sampling.video_guidance, sampling.video_guidance_late, sampling.audio_guidance
    return guidance, min(guidance, sampling.video_guidance_late), guidance


def sample_base(
    velocity: Velocity,
    *,
    video: Tensor,
    audio: Tensor,
    text: Tensor,
    negative: Tensor | None,
    sampling: SamplingConfig,
    steps: int,
    guidance: float | None = None,
    image_latent: Tensor | None = None,
    sound: GivenSound | None = None,
    on_step: OnStep | None = None,
) -> tuple[Tensor, Tensor]:
    """Noise `video` [1, C, T, H, W] and `audio` [1, L, Ca] -> clean latents.

    `image_latent` [1, C, 1, H, W] is the clean first frame of image-to-video. A given `sound` is held: the video alone
    is stepped. Without `negative` there is no guidance and one text a step.
    """
    early, late, audio_scale = with_guidance(sampling, guidance)
    sigmas, timesteps = flow_sigmas(steps, shift=sampling.flow_shift, start=sampling.flow_start)
    texts = [text] if negative is None else [text, negative]
    video_solver, audio_solver = UniPC(sigmas), UniPC(sigmas)
    for done, (sigma, timestep) in enumerate(zip(sigmas.tolist(), timesteps, strict=False)):
        video = hold_first_frame(video, image_latent)
        audio = audio if sound is None else sound.at(sigma)
        (video_v, audio_v), *rest = velocity(video, audio, texts, sigma)
        for video_n, audio_n in rest:
            scale = early if timestep > sampling.guidance_switch else late
            video_v = video_n + scale * (video_v - video_n)
            audio_v = audio_n + audio_scale * (audio_v - audio_n)
        video = video_solver.step(video_v, video)
        audio = audio_solver.step(audio_v, audio) if sound is None else sound.clean
        if on_step is not None:
            on_step(done + 1, steps)
    return hold_first_frame(video, image_latent), audio


def hold_first_frame(video: Tensor, image_latent: Tensor | None) -> Tensor:
    """The video with the clean image [1, C, 1, H, W] as its first latent frame, where there is one."""
    if image_latent is None:
        return video
    return torch.cat([image_latent, video[:, :, 1:]], dim=2)
