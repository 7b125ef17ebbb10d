"""What a rank is asked for, and what comes of it: a clip's request, its latents, and what lies between two stages."""

from dataclasses import dataclass

from torch import Tensor

from model.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class RenderRequest:
    """All that decides a clip's latents. n and m text tokens, Ct text channels."""

    text: Tensor  # [n, Ct]
    negative: Tensor | None  # [m, Ct]; None: no guidance, one forward a step
    video_latent: tuple[int, int, int, int]  # C, T, H, W of the last stage
    first_latent: tuple[int, int, int, int] | None = None  # of the first stage, where super-resolution follows
    audio_latent: tuple[int, int]  # L, Ca
    seed: int
    steps: int  # of the first stage
    guidance: float | None  # of the first stage
    image_latent: Tensor | None  # the clean first frame, [C, 1, H, W] of the first stage
    sound_latent: Tensor | None = None  # the given sound, [L, Ca], held as it is; None: sound is rendered too
    large_image_latent: Tensor | None = None  # the same at the last stage's size, where super-resolution follows


@dataclass(frozen=True, kw_only=True)
class Latents:
    """float32, on the CPU."""

    video: Tensor  # [C, T, H, W]
    audio: Tensor  # [L, Ca]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """All that super-resolution needs of the first stage to go on as if it had been there."""

    latents: Latents  # as the first stage left them: nothing is rounded
    noise: Tensor  # state of the clip's generator, from where the next numbers are drawn


def check_request(model: ModelConfig, request: RenderRequest) -> None:
    """Raises ValueError for a request that cannot be rendered."""
    config = model.transformer
    first = request.first_latent or request.video_latent
    for name, latent in (("first", first), ("video", request.video_latent)):
        if latent[0] != config.video_latent_channels or latent[2] % 2 or latent[3] % 2:
            expected = f"{config.video_latent_channels} channels and an even height and width"
            raise ValueError(f"{name} latent is {latent}, expected {expected}")
    if first[1] != request.video_latent[1]:
        raise ValueError(f"first latent has {first[1]} frames, expected {request.video_latent[1]}")
    if request.first_latent is not None and model.super_resolution is None:
        raise ValueError(f"first latent is {first}, but model {model.name} has no super_resolution")
    if request.audio_latent[1] != config.audio_in_channels:
        raise ValueError(f"audio latent is {request.audio_latent}, expected {config.audio_in_channels} channels")
    for name, text in (("text", request.text), ("negative", request.negative)):
        if text is not None and (text.dim() != 2 or text.shape[1] != config.text_in_channels or not len(text)):
            raise ValueError(f"{name} is {list(text.shape)}, expected [n, {config.text_in_channels}] with n > 0")
    _check_image("image", request.image_latent, first)
    _check_image("large image", request.large_image_latent, request.video_latent)
    sound = request.sound_latent
    if sound is not None and not model.takes_sound:
        raise ValueError(f"model {model.name} cannot render to a given sound")
    if sound is not None and tuple(sound.shape) != request.audio_latent:
        raise ValueError(f"sound latent is {list(sound.shape)}, expected {list(request.audio_latent)}")
    if request.steps < 1:
        raise ValueError(f"steps is {request.steps}, expected at least 1")


def _check_image(name: str, image: Tensor | None, latent: tuple[int, int, int, int]) -> None:
    expected = [latent[0], 1, latent[2], latent[3]]
    if image is not None and list(image.shape) != expected:
        raise ValueError(f"{name} latent is {list(image.shape)}, expected {expected}")
