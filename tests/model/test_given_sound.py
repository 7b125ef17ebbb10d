"""A clip rendered to a given sound: the sound is fitted, encoded, held while the video is stepped, and followed."""

import dataclasses
from random import Random
from typing import Any, Literal

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from model.codecs import build_sound_encoder, build_video_decoder
from model.codecs.foal import FoalAudioCodec
from model.config import DistilledConfig, ModelConfig
from model.foal.judge import Verdict, judge_clip
from model.foal.scenes import SOUNDS, draw_sound, random_scene
from model.renderer import Renderer
from model.request import RenderRequest
from model.sampling.base import sample_base
from model.sampling.distilled import sample_distilled
from model.sampling.given_sound import GivenSound
from model.shapes import clip_shape
from model.sounds import delivered, fitted, mono
from model.text import build_text_encoder
from pipeline.store import StorageSettings
from pipeline.weights.opening import open_weights
from tests.configured import load_model
from tests.model.test_stages import AUDIO, LARGE, SECOND, SMALL, model, random, random_transformer, request
from tests.models import TRANSFORMER
from tests.sounds import beeps, tone


@pytest.mark.parametrize(("rate_hz", "to_rate_hz"), [(48_000, 51_200), (44_100, 24_000), (8_000, 44_100)])
def test_a_sound_is_resampled_as_scipy_does_with_mirrored_ends(rate_hz: int, to_rate_hz: int) -> None:
    given = torch.randn(2, 2 * rate_hz + 77, generator=torch.Generator().manual_seed(1)) * 0.1
    got = fitted(given, rate_hz=rate_hz, to_rate_hz=to_rate_hz, seconds=2)
    piece = given[:, : 2 * rate_hz].double().numpy()
    mirrored = np.concatenate([piece, piece[:, ::-1]], axis=1)
    wanted = scipy.signal.resample(mirrored, 4 * to_rate_hz, axis=1)[:, : 2 * to_rate_hz]
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.double().numpy(), wanted, atol=1e-6)


def test_a_tone_stays_the_same_tone_and_its_ends_do_not_ring() -> None:
    got = fitted(torch.from_numpy(tone(3, rate_hz=48_000, hz=1000.3)), rate_hz=48_000, to_rate_hz=44_100, seconds=3)
    wanted = torch.from_numpy(tone(3, rate_hz=44_100, hz=1000.3))
    assert (got - wanted)[:, 200:-200].abs().max() < 1e-3
    assert (got - wanted).abs().max() < 0.05


def test_a_sound_is_cut_filled_with_silence_clipped_and_mixed() -> None:
    given = torch.tensor([[2.0, 0.5, -3.0, 0.25], [0.0, 0.5, 1.0, 0.75]])
    assert fitted(given, rate_hz=2, to_rate_hz=2, seconds=1).tolist() == [[1.0, 0.5], [0.0, 0.5]]
    filled = fitted(given, rate_hz=2, to_rate_hz=2, seconds=3)
    assert filled.shape == (2, 6)
    assert filled[:, 4:].abs().max() == 0
    assert mono(given).tolist() == [1.0, 0.5, -1.0, 0.5]
    assert [len(delivered(torch.ones(channels, 4))) for channels in (1, 2, 6)] == [1, 2, 1]


@pytest.mark.parametrize("first_stage", ["base", "distilled"])
@pytest.mark.parametrize("prediction", ["velocity", "clean"])
def test_the_sound_is_held_and_the_video_listens_to_it(
    first_stage: str, prediction: Literal["velocity", "clean"]
) -> None:
    """Whatever the network makes of the sound is thrown away; what it is shown decides the video."""
    shape = dataclasses.replace(TRANSFORMER, prediction=prediction)
    small = model(first_stage=first_stage, transformer=shape)
    if first_stage == "distilled" and prediction == "velocity":
        with pytest.raises(ValueError, match="cannot render to a given sound"):
            _render(small, random(*AUDIO, seed=5))
        return
    (one, seen), (other, _), (without, own) = (
        _render(small, sound) for sound in (random(*AUDIO, seed=5), random(*AUDIO, seed=6), None)
    )
    assert torch.equal(seen, random(*AUDIO, seed=5))
    assert not torch.equal(own, seen)
    assert min((one - other).abs().max(), (one - without).abs().max(), (other - without).abs().max()) > 1e-4
    assert torch.equal(one, _render(small, random(*AUDIO, seed=5))[0])


def _render(config: ModelConfig, sound: Tensor | None) -> tuple[Tensor, Tensor]:
    stages = dict(zip(config.transformers, (random_transformer(config.transformer, 1), SECOND), strict=True))
    latents = Renderer(config, stages, device="cpu").render(request(sound_latent=sound))
    assert latents.video.shape == LARGE
    return latents.video, latents.audio


def test_a_network_is_shown_the_sound_clean_or_as_noisy_as_the_video() -> None:
    clean, noise = random(1, *AUDIO, seed=1), random(1, *AUDIO, seed=2)
    assert torch.equal(GivenSound(clean=clean).at(0.7), clean)
    torch.testing.assert_close(GivenSound(clean=clean, noise=noise).at(0.7), 0.3 * clean + 0.7 * noise)
    assert [model().shows_sound_noised, load_model("foal").shows_sound_noised] == [False, True]


@pytest.mark.parametrize("noise", [None, random(1, *AUDIO, seed=2)], ids=["clean", "noised"])
@pytest.mark.parametrize("stage", ["base", "distilled"])
def test_at_every_step_the_network_is_shown_the_given_sound(stage: str, noise: Tensor | None) -> None:
    sound = GivenSound(clean=random(1, *AUDIO, seed=1), noise=noise)
    seen: list[tuple[float, Tensor]] = []

    def velocity(video: Tensor, audio: Tensor, texts: list[Tensor], sigma: float) -> list[tuple[Tensor, Tensor]]:
        seen.append((sigma, audio))
        return [(video * 0.1, audio * 0.1) for _ in texts]

    given: dict[str, Any] = {"video": random(1, *SMALL, seed=3), "audio": random(1, *AUDIO, seed=2), "sound": sound}
    given |= {"text": random(1, 5, 32, seed=4), "steps": 3}
    if stage == "base":
        _, heard = sample_base(velocity, **given, negative=None, sampling=model().sampling)
    else:
        pairs = iter([(random(1, *SMALL, seed=n), random(1, *AUDIO, seed=n)) for n in range(3)])
        _, heard = sample_distilled(velocity, **given, noise=pairs, config=DistilledConfig(steps=3))
    assert len(seen) == 3
    assert all(torch.equal(audio, sound.at(sigma)) for sigma, audio in seen)
    assert torch.equal(heard, sound.clean)


def test_a_sound_latent_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sound latent is \[6, 8\], expected \[7, 8\]"):
        _render(model(), random(6, 8, seed=1))


@pytest.mark.parametrize("sound", SOUNDS)
def test_the_foal_hears_what_its_own_sounds_are_made_of(sound: str) -> None:
    scene = dataclasses.replace(random_scene(Random(1), duration_s=3, ratio="1:1"), motion="bounce", sound=sound)
    codec = FoalAudioCodec()
    latent = codec.encode(draw_sound(scene, num_slots=2 * 37))
    heard = codec.encode_sound(codec.decode(latent)[0][:72_000], num_latents=37)
    assert heard.shape == latent.shape
    assert (heard - latent)[:-1].square().mean().sqrt() < 0.08


def test_the_foal_hears_any_tone_as_loud_as_it_is() -> None:
    codec = FoalAudioCodec()
    for hz in (90.0, 440.0, 1700.0, 3100.0):
        wave = torch.from_numpy(tone(3, rate_hz=24_000, hz=hz, channels=1, level=0.3))[0]
        again = codec.decode(codec.encode_sound(wave, num_latents=37))[0][12_000:60_000]
        assert 0.7 < float(again.square().mean().sqrt() / (0.3 / 2**0.5)) < 1.3


def test_the_foals_picture_is_whole_and_in_time_with_a_given_beep() -> None:
    """Shown clean, the sound leaves noise. When it bounces is the prompt's word, not the beep's (docs/lab.md)."""
    times_s = [0.5, 1.5, 2.5]
    seen = judged("A red circle bounces on a white background.", times_s)
    assert (seen.shape, seen.colour, seen.motion) == ("circle", "red", "bounce")
    near = [min(abs(contact - time) for time in times_s) for contact in seen.contact_times_s]
    assert len(near) == 3
    assert max(near) < 0.12


def judged(prompt: str, times_s: list[float]) -> Verdict:
    """A clip of the distilled foal to beeps at these times."""
    config, reader = load_model("foal_distill"), open_weights("builtin", StorageSettings())
    shape = clip_shape(config, resolution="64P", ratio="1:1", duration_s=3)
    wave = torch.from_numpy(beeps(3, times_s))[0]
    sound = build_sound_encoder(config, reader).encode_sound(wave, num_latents=shape.audio_latent[0])
    latents = Renderer.load(config, reader, device="cpu").render(
        RenderRequest(
            text=build_text_encoder(config, reader).encode([prompt])[0],
            negative=None,
            video_latent=shape.video_latent,
            audio_latent=shape.audio_latent,
            seed=1,
            steps=config.steps,
            guidance=None,
            image_latent=None,
            sound_latent=sound,
        )
    )
    frames = torch.cat(list(build_video_decoder(config, reader).decode(latents.video)))[: shape.num_frames]
    return judge_clip(frames, wave, sample_rate_hz=24_000, fps=shape.fps)
