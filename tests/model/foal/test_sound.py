"""The bank of sinusoids, and the sounds that scenes make with it."""

import dataclasses
import random

import pytest
import torch

from model.codecs.foal import BAND_HZ, SAMPLE_RATE_HZ, SLOTS_PER_S, FoalAudioCodec
from model.foal.scenes import SHAPES, Scene, draw_sound, random_scene

NUM_SLOTS = 3 * SLOTS_PER_S


def bouncing(sound: str, *, shape: str = "circle") -> Scene:
    rng = random.Random(2)
    while (scene := random_scene(rng, duration_s=3, ratio="1:1")).shape != shape:
        pass
    return dataclasses.replace(scene, motion="bounce", sound=sound)


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


def test_lasting_sounds_last_and_silence_is_zero() -> None:
    assert draw_sound(bouncing("silence"), num_slots=NUM_SLOTS).abs().max() == 0
    loudest = {}
    for sound in ("hum", "tone"):
        amplitudes = draw_sound(bouncing(sound), num_slots=NUM_SLOTS)
        assert amplitudes.max() > 0.2
        assert (amplitudes == amplitudes[0]).all()
        loudest[sound] = BAND_HZ[int(amplitudes[0].argmax())]
    assert loudest["hum"] < 300 < loudest["tone"]


@pytest.mark.parametrize("sound", ["beep", "thud"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_burst_begins_at_each_contact_and_nowhere_else(shape: str, sound: str) -> None:
    """A contact falls between two of the codec's instants: the one after it is the first that sounds."""
    scene = bouncing(sound, shape=shape)
    loud = (draw_sound(scene, num_slots=NUM_SLOTS).amax(-1) > 0.05).tolist()
    begins = [n / SLOTS_PER_S for n, is_loud in enumerate(loud) if is_loud and not (n and loud[n - 1])]
    assert begins == pytest.approx(scene.contact_times_s)
    assert sum(loud) < 6 * len(begins), "a burst is short"
