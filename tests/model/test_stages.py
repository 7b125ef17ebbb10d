"""A rank's way from a request to latents: which stages run, on which noise, and what is refused before any of it."""

import dataclasses

import pytest
import torch
from torch import Tensor

from model.config import DistilledConfig, ModelConfig, SuperResolutionConfig, SuperResolutionStage
from model.renderer import Renderer
from model.request import Latents, RenderRequest
from model.sampling.base import sample_base
from model.sampling.distilled import sample_distilled
from model.sampling.prediction import velocity_of
from model.sampling.super_resolution import (
    frame_guidance,
    sample_super_resolution,
    start_audio,
    start_video,
)
from model.transformer import Transformer
from tests.models import TRANSFORMER, small_model

SMALL, LARGE, AUDIO = (16, 4, 4, 6), (16, 4, 8, 10), (7, 8)
STAGE = SuperResolutionStage(
    part="sr",
    transformer=dataclasses.replace(TRANSFORMER, coords_style="v1", local_attn_layers=(1, 2), frame_receptive_field=1),
    sampling=SuperResolutionConfig(steps=2),
)


def model(**changes: object) -> ModelConfig:
    return dataclasses.replace(small_model(), distilled=DistilledConfig(steps=3), super_resolution=STAGE, **changes)  # type: ignore[arg-type]


@torch.no_grad()
def random_transformer(config: object, seed: int) -> Transformer:
    transformer = Transformer(config, dtype=torch.float32).requires_grad_(False)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    for tensor in transformer.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return transformer


FIRST, SECOND = random_transformer(TRANSFORMER, 1), random_transformer(STAGE.transformer, 2)


def renderer(**changes: object) -> Renderer:
    made = model(**changes)
    return Renderer(made, dict(zip(made.transformers, (FIRST, SECOND), strict=True)), device="cpu")


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def request(**changes: object) -> RenderRequest:
    values = {
        "text": random(5, 32, seed=1),
        "negative": random(3, 32, seed=2),
        "video_latent": LARGE,
        "first_latent": SMALL,
        "audio_latent": AUDIO,
        "seed": 7,
        "steps": 2,
        "guidance": None,
        "image_latent": None,
    }
    return RenderRequest(**(values | changes))  # type: ignore[arg-type]


def draws(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn((1, *shape), generator=generator) for shape in shapes]


def assert_same(got: Latents, video: Tensor, audio: Tensor) -> None:
    torch.testing.assert_close(got.video, video[0])
    torch.testing.assert_close(got.audio, audio[0])


@torch.inference_mode()
def enlarged(asked: RenderRequest, video: Tensor, audio: Tensor, noise: list[Tensor], *, guided: bool) -> Tensor:
    image = asked.large_image_latent
    return sample_super_resolution(
        velocity_of(SECOND),
        video=start_video(video, noise[0], config=STAGE.sampling),
        audio=start_audio(audio, noise[1], noise_scale=0.7),
        text=asked.text[None],
        negative=asked.negative[None] if guided and asked.negative is not None else None,
        config=dataclasses.replace(STAGE.sampling, guided=guided),
        image_latent=None if image is None else image[None],
    )


@torch.inference_mode()
@pytest.mark.parametrize("guided", [False, True])
def test_base_then_super_resolution(guided: bool) -> None:
    image, large = random(16, 1, 4, 6, seed=3), random(16, 1, 8, 10, seed=4)
    asked = request(image_latent=image, large_image_latent=large)
    audio_noise, video_noise, *rest = draws(AUDIO, SMALL, LARGE, AUDIO)
    video, audio = sample_base(
        velocity_of(FIRST),
        video=video_noise,
        audio=audio_noise,
        text=asked.text[None],
        negative=asked.negative[None] if asked.negative is not None else None,
        sampling=small_model().sampling,
        steps=2,
        image_latent=image[None],
    )
    stage = dataclasses.replace(STAGE, sampling=dataclasses.replace(STAGE.sampling, guided=guided))
    one = Renderer(dataclasses.replace(model(), super_resolution=stage), {"base": FIRST, "sr": SECOND}, device="cpu")
    got = one.render(asked)
    assert_same(got, enlarged(asked, video, audio, rest, guided=guided), audio)
    assert torch.equal(got.video[:, :1], large), "the given picture is the first frame"
    paired = Renderer(dataclasses.replace(one.model, one_forward=True), {"base": FIRST, "sr": SECOND}, device="cpu")
    torch.testing.assert_close(paired.render(asked).video, got.video, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_distilled_then_super_resolution() -> None:
    asked = request(steps=2)
    audio_noise, video_noise, *rest = draws(AUDIO, SMALL, SMALL, AUDIO, SMALL, AUDIO, LARGE, AUDIO)
    video, audio = sample_distilled(
        velocity_of(FIRST),
        video=video_noise,
        audio=audio_noise,
        text=asked.text[None],
        noise=iter([(rest[0], rest[1]), (rest[2], rest[3])]),
        steps=2,
        config=DistilledConfig(),
    )
    got = renderer(first_stage="distilled").render(asked)
    assert_same(got, enlarged(asked, video, audio, rest[4:], guided=False), audio)


@torch.inference_mode()
def test_a_size_without_first_latent_ends_after_the_first_stage() -> None:
    small = renderer().render(request(video_latent=SMALL, first_latent=None))
    assert small.video.shape == SMALL
    large = renderer().render(request())
    assert torch.equal(small.audio, large.audio), "what is delivered is the first stage's sound"


@torch.inference_mode()
def test_steps_are_counted_over_all_stages() -> None:
    told: list[tuple[int, int]] = []
    renderer().render(request(), on_step=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_guidance_of_super_resolution_is_weak_on_the_first_frames() -> None:
    config = SuperResolutionConfig(video_guidance=3.5, video_guidance_first=2.0, guidance_first_frames=13)
    scales = frame_guidance(config, 16, like=torch.zeros(1))
    assert scales.flatten().tolist() == [2.0] * 13 + [3.5] * 3
    video = torch.ones(1, 48, 16, 2, 2)
    assert (video * scales)[0, 7, :, 1, 0].tolist() == [2.0] * 13 + [3.5] * 3, "along the latent frames"
    assert frame_guidance(config, 5, like=torch.zeros(1)).flatten().tolist() == [2.0] * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_latent": (16, 4, 3, 6)}, "first latent is .* an even height and width"),
        ({"first_latent": (16, 3, 4, 6)}, "first latent has 3 frames, expected 4"),
        ({"image_latent": torch.zeros(16, 1, 8, 10)}, r"image latent is \[16, 1, 8, 10\], expected \[16, 1, 4, 6\]"),
        ({"large_image_latent": torch.zeros(16, 1, 4, 6)}, r"large image latent is .*, expected \[16, 1, 8, 10\]"),
        ({"audio_latent": (7, 9)}, "audio latent is .*, expected 8 channels"),
        ({"text": torch.zeros(0, 32)}, r"text is \[0, 32\], expected"),
        ({"steps": 0}, "steps is 0, expected at least 1"),
    ],
)
def test_a_request_that_cannot_be_rendered_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        renderer().check(request(**changes))


def test_a_model_of_one_stage_has_no_first_latents() -> None:
    one = Renderer(small_model(), {"base": FIRST}, device="cpu")
    with pytest.raises(ValueError, match="model small has no super_resolution"):
        one.check(request())
