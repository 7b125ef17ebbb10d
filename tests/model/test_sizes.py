"""Every size of every model in `conf/`: even, on the latent grid or cropped by less than a patch, exact in frames."""

from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import pytest

from jobs.compose import compose_values, defaults
from jobs.settings import run_settings
from jobs.words import read_words
from model.config import ModelConfig
from model.shapes import GRID, ClipShape, clip_shape, decoded_frames, table_size

MODELS = defaults("render")[1]["model"].names
RATIOS = "16:9 9:16 1:1 4:3 3:4 4:5 5:4 21:9 9:21".split()
NUM_PIXELS = {"256P": 448 * 256, "540P": 896 * 512, "720P": 1280 * 720, "1080P": 1920 * 1080}
RELEASED = {("256P", "16:9"): (448, 256), ("540P", "16:9"): (896, 512)}  # width, height; decoded whole


@cache  # to compose takes half a second
def model(name: str) -> ModelConfig:
    return run_settings(compose_values("render", read_words([f"model={name}", "manifest=m", "output=o"]))).model


def shapes(config: ModelConfig) -> Iterator[tuple[str, str, int, ClipShape]]:
    for resolution, ratios in config.sizes.items():
        for ratio in ratios:
            for duration_s in config.durations_s:
                shape = clip_shape(config, resolution=resolution, ratio=ratio, duration_s=duration_s)
                yield resolution, ratio, duration_s, shape


@pytest.mark.parametrize("name", MODELS)
def test_every_clip_is_even_on_the_grid_and_exact(name: str) -> None:
    config = model(name)
    for resolution, ratio, duration_s, shape in shapes(config):
        where = f"{resolution} {ratio} {duration_s} s"
        _, frames, height, width = shape.video_latent
        assert shape.height % 2 == shape.width % 2 == height % GRID == width % GRID == 0, where
        patch = GRID * config.spatial_scale
        for delivered, latent in ((shape.height, height), (shape.width, width)):
            assert 0 <= latent * config.spatial_scale - delivered < patch, where
        assert shape.num_frames == duration_s * config.fps, where
        assert decoded_frames(frames) >= shape.num_frames > decoded_frames(frames - 1), where
        assert shape.num_samples == duration_s * config.sample_rate_hz, where
        assert shape.audio_latent[0] == duration_s * config.audio_latents_per_s + 1, where
        if shape.first_latent is not None:
            assert shape.first_latent[:2] == shape.video_latent[:2], where
            assert shape.first_latent[2] * shape.first_latent[3] < height * width, where


@pytest.mark.parametrize("name", [each for each in MODELS if not each.startswith("foal")])
def test_released_sizes_come_from_the_pixel_count_of_their_name(name: str) -> None:
    sizes = model(name).sizes
    for resolution, ratios in sizes.items():
        assert list(ratios) == RATIOS, resolution
        for ratio, size in ratios.items():
            turned = ":".join(reversed(ratio.split(":")))
            delivered = RELEASED.get((resolution, ratio)) or RELEASED.get((resolution, turned), (0, 0))[::-1]
            computed = table_size(ratio, num_pixels=NUM_PIXELS[resolution], spatial_scale=16)
            expected = delivered if any(delivered) else (computed.width, computed.height)
            assert (size.width, size.height) == expected, f"{resolution} {ratio}"
            if not any(delivered):
                assert (size.latent_height, size.latent_width) == (computed.latent_height, computed.latent_width)
                wanted = Fraction(*map(int, ratio.split(":")))
                assert abs(size.width / size.height / float(wanted) - 1) < 0.01, f"{resolution} {ratio}"
            first = sizes["256P"][ratio]
            if resolution != "256P":
                assert (size.first_latent_height, size.first_latent_width) == (first.latent_height, first.latent_width)


def test_the_sizes_that_users_know() -> None:
    config = model("magihuman_1080p")
    sizes = {(r, a): (s.width, s.height) for r, ratios in config.sizes.items() for a, s in ratios.items()}
    assert sizes["1080P", "16:9"] == (1920, 1080)
    assert sizes["720P", "9:16"] == (720, 1280)
    assert sizes["1080P", "1:1"] == (1440, 1440)
    shape = clip_shape(config, resolution="1080P", ratio="16:9", duration_s=5)
    assert shape.video_latent == (48, 32, 68, 120), "decoded at 1920x1088"
    assert (shape.num_video_tokens, shape.num_first_tokens) == (65_280, 3_584 + 126)
