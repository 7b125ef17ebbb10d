"""What a finisher holds does not grow with the clip: tensors at their peak at 3 s and at 15 s, from latents to mp4.

Counted by storages, not by the process's memory: allocators keep what they had, and that is no answer to anything.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from model.codecs import build_audio_decoder, build_video_decoder
from model.codecs.oobleck import BESIDE, PIECE
from model.weights import LocalWeights
from pipeline.media import encode_clip
from tests.allocations import Allocations
from tests.clips import MEDIA
from tests.frames import shape_of
from tests.released import AUDIO_CHANNELS, released_model

HEIGHT, WIDTH, FPS = 4, 4, 25  # latent cells: 15 s of frames take 4.6 MB


@pytest.mark.parametrize("codec", ["turbo", "wan"])
def test_frames_of_15_s_take_what_those_of_3_s_take(codec: str, released_weights: Path, tmp_path: Path) -> None:
    words = ("model.compute_dtype=float32", f"model.codecs.video={codec}")
    model = released_model("magihuman_distill", first_stage="distilled", words=words)
    decoder = build_video_decoder(model, LocalWeights(released_weights))
    peaks = {}
    for seconds in (3, 15):
        shape = shape_of(width=16 * WIDTH, height=16 * HEIGHT, fps=FPS, seconds=seconds)
        latent = torch.randn(48, (FPS * seconds + 2) // 4 + 1, HEIGHT, WIDTH)
        with Allocations() as made:
            frames = (window.numpy() for window in decoder.decode(latent))
            encode_clip(frames, shape=shape, waveform=None, folder=tmp_path, stem=str(seconds), settings=MEDIA)
        peaks[seconds] = made.peak_bytes - 3 * latent.nbytes  # the latent itself, padded or made ready, is not cut up
    assert peaks[15] < 1.02 * peaks[3]


def test_sound_is_decoded_piece_by_piece(released_weights: Path) -> None:
    model = released_model("magihuman_distill", first_stage="distilled")
    sound: Any = build_audio_decoder(model, LocalWeights(released_weights))
    seen: list[int] = []
    sound._vae.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-1]))
    sound.decode(torch.randn(FPS * 15 + 1, AUDIO_CHANNELS))
    assert seen == [PIECE + BESIDE, PIECE + 2 * BESIDE, PIECE + 2 * BESIDE, 76 + BESIDE]
