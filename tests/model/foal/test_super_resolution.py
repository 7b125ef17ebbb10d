"""Training shows the second stage what its sampler will show it."""

import dataclasses
from typing import cast

import pytest
import torch
from torch import Tensor

from model.config import SuperResolutionConfig
from model.foal import super_resolution
from model.foal.batches import Batch, Noise
from model.foal.super_resolution import FLAWS, NOISIEST, SAMPLING, SuperResolutionTask, _levels
from model.foal.training import Recipe
from model.sampling.schedules import flow_sigmas
from model.sampling.super_resolution import sample_super_resolution, start_audio, start_video
from model.transformer import Transformer
from tests.model.foal.fields import NOWHERE, Field, any_codec, any_text

RECIPE = Recipe(seed=3, steps=1, batch_size=1, learning_rate=1.0)
OWN_LEVELS = flow_sigmas(SAMPLING.steps, shift=SAMPLING.flow_shift, start=SAMPLING.flow_start)[0][:-1].tolist()


@pytest.fixture(scope="module")
def task() -> SuperResolutionTask:
    made = SuperResolutionTask(RECIPE, codec=any_codec(), text=any_text(), weights=NOWHERE, device="cpu")
    made.model = cast(Transformer, Field(0.0, 0.0))
    return made


def shown(task: SuperResolutionTask, step: int) -> tuple[Tensor, Tensor]:
    """(video, sound) that the network sees in training."""
    task.losses(step, task.model)
    seen = cast(Field, task.model).seen
    assert seen is not None
    return seen[0], seen[1]


def starts(task: SuperResolutionTask, step: int) -> tuple[Batch, Tensor, Tensor]:
    """The batch, and what the stage would start from: video, sound."""
    batch, noise = task.clips.draw(step)
    assert batch.large is not None
    size = FLAWS * noise.uniform(1, 1, 1, 1, 1)
    flawed = batch.video + size * noise.like(batch.video)
    least = SAMPLING.noise_level
    level = least + int(noise.uniform(1) * (NOISIEST + 1 - least))
    noisy = dataclasses.replace(SAMPLING, noise_level=level)
    video = start_video(flawed, noise.like(batch.large), config=noisy)
    return batch, video, start_audio(batch.audio, noise.like(batch.audio), noise_scale=SAMPLING.audio_noise_scale)


def level_of(video: Tensor, batch: Batch, start: Tensor) -> float:
    """Which s makes (1-s)*clean + s*start of what was shown; the frame that is given aside."""
    assert batch.large is not None
    way, gone = ((x - batch.large)[:, :, batch.num_given :].flatten() for x in (start, video))
    s = float(way @ gone / (way @ way))
    assert torch.allclose(gone, s * way, atol=1e-4), "between the clean video and the start"
    return s


def sampled(batch: Batch, start: Tensor, audio: Tensor) -> dict[float, Tensor]:
    """What the sampler shows at each level to a network that always knows the clean video."""
    clean, seen = batch.large, {}
    assert clean is not None

    def velocity(video: Tensor, sound: Tensor, texts: list[Tensor], sigma: float) -> list[tuple[Tensor, Tensor]]:
        assert torch.equal(sound, audio)
        seen[sigma] = video
        return [((video - clean) / sigma, sound)]

    image = clean[:, :, :1] if batch.num_given else None
    end = sample_super_resolution(
        velocity, video=start, audio=audio, text=batch.text, negative=None, config=SAMPLING, image_latent=image
    )
    assert torch.allclose(end, clean, atol=1e-5)
    return seen


@pytest.mark.parametrize("image_given", [False, True])
def test_at_the_samplers_own_levels_training_shows_what_the_sampler_shows(
    image_given: bool, task: SuperResolutionTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first level is 0.9998 instead of 1, which training leaves out of account."""
    monkeypatch.setattr(task.clips, "image_given", float(image_given))
    found = set()
    for step in range(12):
        batch, start, audio = starts(task, step)
        assert batch.num_given == image_given
        video, heard = shown(task, step)
        assert torch.equal(heard, audio)
        s = level_of(video, batch, start)
        (own,) = (level for level in OWN_LEVELS if abs(level - s) < 1e-4)
        assert torch.allclose(video, sampled(batch, start, audio)[own], atol=3e-3)
        found.add(own)
    assert found == {*OWN_LEVELS}


def test_every_own_level_is_trained_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their number."""
    monkeypatch.setattr(super_resolution, "SAMPLING", SuperResolutionConfig(steps=5))
    drawn = _levels(4000, Noise(1, device="cpu"))
    own = flow_sigmas(5, shift=5.0)[0][:-1].tolist()
    shares = [float((drawn - level).abs().lt(1e-6).float().mean()) for level in own]
    assert shares == pytest.approx([0.2] * 5, abs=0.02)
