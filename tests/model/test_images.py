"""Image preparation and the latents' scales against straightforward float64 versions of what they are said to be."""

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from model.codecs.normalisation import MEAN, SPREAD, denormalised, eight_bit, normalised
from model.images import prepare_image

Array = npt.NDArray[Any]
LOBES = 3


def lanczos(x: Array) -> Array:
    return np.where(np.abs(x) < LOBES, np.sinc(x) * np.sinc(x / LOBES), 0.0)


def resize_matrix(before: int, after: int) -> Array:
    """[after, before]: an output pixel's weights, wider by as much as the picture shrinks, with a sum of 1."""
    scale = before / after
    stretch = max(scale, 1.0)
    centres = (np.arange(after) + 0.5) * scale
    weights = lanczos((np.arange(before)[None] + 0.5 - centres[:, None]) / stretch)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def straightforward(pixels: Array, *, height: int, width: int) -> Array:
    """Centre-cropped to the target's ratio without scaling, then Lanczos; rounded after each, as in Pillow."""
    have_height, have_width = pixels.shape[:2]
    crop_width = min(have_width, round(have_height * width / height))
    crop_height = min(have_height, round(have_width * height / width))
    top, left = (have_height - crop_height) // 2, (have_width - crop_width) // 2
    cropped = pixels[top : top + crop_height, left : left + crop_width].astype(np.float64)
    across = np.einsum("wx,yxc->ywc", resize_matrix(crop_width, width), cropped).round().clip(0, 255)
    return np.asarray(np.einsum("hy,ywc->hwc", resize_matrix(crop_height, height), across).clip(0, 255))


@pytest.mark.parametrize(
    ("have", "asked"),
    [((360, 640), (64, 96)), ((640, 360), (64, 96)), ((300, 300), (320, 480)), ((301, 517), (128, 128))],
)
def test_an_image_is_cropped_in_its_middle_and_resized_with_lanczos(
    have: tuple[int, int], asked: tuple[int, int]
) -> None:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (math.ceil(have[0] / 16), math.ceil(have[1] / 16), 3)).repeat(16, 0).repeat(16, 1)
    pixels = coarse[: have[0], : have[1]].astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    got = prepare_image(buffer.getvalue(), height=asked[0], width=asked[1])
    assert (got.dtype, tuple(got.shape)) == (torch.uint8, (*asked, 3))
    off = np.abs(got.numpy().astype(np.float64) - straightforward(pixels, height=asked[0], width=asked[1]))
    assert off.max() < 1.1  # rounded, from weights of 22 bits


def test_latents_are_scaled_as_float64_says() -> None:
    mean, spread = (np.array(values)[:, None, None, None] for values in (MEAN, SPREAD))
    assert (len(MEAN), len(SPREAD), min(SPREAD) > 0) == (48, 48, True)
    posterior = torch.randn(48, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    exact = posterior.double().numpy()
    np.testing.assert_allclose(normalised(posterior).numpy(), (exact - mean) / spread, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(denormalised(posterior).numpy(), exact * spread + mean, rtol=1e-5, atol=1e-6)
    assert normalised(posterior).dtype == denormalised(posterior).dtype == torch.float32


def test_frames_become_eight_bits_by_truncation() -> None:
    values = torch.tensor([-1.5, -1.0, -0.999, 0.0, 0.5, 0.9999, 1.0, 2.0])
    wanted = np.floor((values.double().numpy() / 2 + 0.5).clip(0, 1) * 255)
    frames = eight_bit(values.reshape(1, 8, 1, 1).expand(3, -1, 1, 1))
    assert frames.shape == (8, 1, 1, 3)
    assert frames[:, 0, 0, 0].tolist() == wanted.tolist() == [0, 0, 0, 127, 191, 254, 255, 255]
