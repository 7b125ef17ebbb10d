"""The foal's parts: codecs that keep what they are given, a text encoder, scenes, and training that can resume."""

import dataclasses
import random
from pathlib import Path

import pytest
import torch

from model.codecs.foal import BAND_HZ, SAMPLE_RATE_HZ, FoalAudioCodec, FoalVideoCodec
from model.foal.captions import caption, vocabulary
from model.foal.codec_fit import fit_video_codec
from model.foal.scenes import COLOURS, MOTIONS, SHAPES, draw_frames, is_held_out, random_scene
from model.foal.train import Trainer, Training, scene_latents
from model.text import UNKNOWN, FoalTextEncoder


@pytest.fixture(scope="module")
def codec() -> FoalVideoCodec:
    return fit_video_codec(48, seed=1, fps=12, num_scenes=40)


def test_a_picture_survives_its_codec(codec: FoalVideoCodec) -> None:
    rng = random.Random(3)
    for ratio in ("1:1", "16:9", "9:16"):
        frames = draw_frames(random_scene(rng, duration_s=3, ratio=ratio), num_frames=37, fps=12)
        windows = list(codec.decode(codec.encode(frames)))
        decoded = torch.cat(windows).float() / 255
        assert len(windows) > 1
        assert decoded.shape == frames.shape
        assert (decoded - frames).square().mean().sqrt() < 0.05
        first = codec.encode_image((frames[0] * 255).round().to(torch.uint8))
        assert torch.allclose(first, codec.encode(frames)[:, :1], atol=0.1)


def test_a_tone_comes_out_at_its_frequency_and_silence_is_silent() -> None:
    codec = FoalAudioCodec()
    amplitudes = torch.zeros(74, len(BAND_HZ))
    assert codec.decode(codec.encode(amplitudes)).abs().max() == 0
    amplitudes[:, 20] = 0.3
    wave = codec.decode(codec.encode(amplitudes))[0]
    spectrum = torch.fft.rfft(wave).abs()
    peak_hz = int(spectrum.argmax()) * SAMPLE_RATE_HZ / len(wave)
    assert abs(peak_hz - BAND_HZ[20]) < 1
    assert wave[5000:-5000].abs().max() == pytest.approx(0.3, rel=0.02)


def test_words_keep_their_place_and_strangers_share_one() -> None:
    encoder = FoalTextEncoder(["red", "ball", "left", "right"], channels=12)
    unknown = encoder.words[UNKNOWN]
    ids = encoder.tokenize("A RED, shiny ball; left-right!")
    words = ["red", None, "ball", "left", "right"]
    assert ids[1] == unknown
    assert ids[2:-1] == [encoder.words[word] if word else unknown for word in words]
    assert encoder.tokenize("狂风暴雨，大树倒下") == [0, unknown, 1]
    assert encoder.count_tokens("") == 2
    first, second = encoder.encode(["left right", "right left"])
    assert not torch.allclose(first[1:-1].sum(0), second[1:-1].sum(0)), "order must reach the model"


def test_every_caption_is_within_the_vocabulary() -> None:
    encoder = FoalTextEncoder(vocabulary(), channels=96)
    rng = random.Random(5)
    for _ in range(2000):
        scene = random_scene(rng, duration_s=3, ratio="1:1")
        assert encoder.words[UNKNOWN] not in encoder.tokenize(caption(scene, rng, name_subject=rng.random() < 0.8))


def test_one_eighth_of_the_world_is_held_out() -> None:
    combinations = [(s, c, m) for s in SHAPES for c in COLOURS for m in MOTIONS]
    held_out = {(s, c, m) for s, c, m in combinations if is_held_out(shape=s, colour=c, motion=m)}
    assert len(held_out) == len(combinations) // 8
    assert {s for s, _, _ in held_out} == set(SHAPES)
    assert {m for _, _, m in held_out} == set(MOTIONS)
    rng = random.Random(1)
    for wanted in (True, False):
        scene = random_scene(rng, duration_s=3, ratio="1:1", held_out=wanted)
        assert ((scene.shape, scene.colour, scene.motion) in held_out) is wanted


def test_contact_times_are_where_the_path_is_lowest(codec: FoalVideoCodec) -> None:
    scene = dataclasses.replace(
        random_scene(random.Random(2), duration_s=3, ratio="1:1"),
        motion="bounce",
        sound="beep",
        period_s=1.0,
        phase=0.5,
    )
    assert scene.contact_times_s == pytest.approx([0.5, 1.5, 2.5])
    _, audio = scene_latents(scene, codec)
    loud = (audio.reshape(-1, len(BAND_HZ)).amax(-1) > 1).nonzero().flatten() / 24
    starts = [float(t) for n, t in enumerate(loud) if n == 0 or t - loud[n - 1] > 0.1]
    assert starts == pytest.approx(scene.contact_times_s, abs=0.05)


@pytest.mark.slow
def test_the_loss_falls_and_resuming_is_exact(codec: FoalVideoCodec, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    training = Training(seed=7, num_steps=24, batch_size=2, learning_rate=1.5e-3, warmup_steps=4)
    straight = Trainer(training, codec=codec)
    losses = [sum(straight.advance()) for _ in range(24)]
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])
    broken_off = Trainer(training, codec=codec)
    for _ in range(12):
        broken_off.advance()
    broken_off.save(tmp_path / "state.pt")
    resumed = Trainer(training, codec=codec)
    resumed.resume(tmp_path / "state.pt")
    assert [sum(resumed.advance()) for _ in range(12)] == losses[12:]
    other = Trainer(dataclasses.replace(training, batch_size=3), codec=codec)
    with pytest.raises(ValueError, match="batch_size"):
        other.resume(tmp_path / "state.pt")
