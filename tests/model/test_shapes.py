"""Sizes: exact frame counts, and rules that a wrong config breaks loudly."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import Size, TransformerConfig
from model.shapes import clip_shape, decoded_frames, latent_frames, nearest_ratio
from tests.models import TRANSFORMER, small_model


@given(num_frames=st.integers(1, 2000))
def test_latent_frames_cover_the_clip_with_none_to_spare(num_frames: int) -> None:
    latent = latent_frames(num_frames)
    assert decoded_frames(latent) >= num_frames
    assert latent == 1 or decoded_frames(latent - 1) < num_frames


def test_a_clip_of_five_seconds() -> None:
    shape = clip_shape(small_model(), resolution="64P", ratio="16:9", duration_s=5)
    assert shape.num_frames == 60
    assert (shape.width, shape.height) == (80, 46)
    assert shape.video_latent == (16, 16, 6, 10)
    assert shape.audio_latent == (61, 8)
    assert shape.num_samples == 120_000
    assert shape.num_tokens == 16 * 3 * 5 + 61


@pytest.mark.parametrize(
    ("height", "width", "ratio"), [(400, 400, "1:1"), (300, 700, "16:9"), (700, 300, "9:16"), (400, 450, "1:1")]
)
def test_an_image_takes_the_nearest_ratio(height: int, width: int, ratio: str) -> None:
    assert nearest_ratio(small_model(), resolution="64P", height=height, width=width) == ratio


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads_q": 6}, "num_heads_q 6 is not a multiple of num_heads_kv 4"),
        ({"head_dim": 12}, "head_dim 12 is not a multiple of 8"),
        ({"mm_layers": (0, 9)}, r"mm_layers names layers \[9\], expected 0 to 3"),
        ({"coords_style": "v3"}, "coords_style is 'v3', expected v1 or v2"),
        ({"local_attn_layers": (1,)}, "local_attn_layers needs a frame_receptive_field"),
        ({"video_in_channels": 6}, "video_in_channels 6 is not a multiple of 4"),
        ({"num_layers": 0}, "num_layers is 0, expected at least 1"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TRANSFORMER, **changes)  # type: ignore[arg-type]


def test_sizes_are_even_and_inside_the_decoded_frame() -> None:
    with pytest.raises(ValueError, match="delivered size 45x46 is not even"):
        Size(latent_height=6, latent_width=6, height=46, width=45)
    too_large = {"64P": {"16:9": Size(latent_height=6, latent_width=10, height=50, width=80)}}
    with pytest.raises(ValueError, match="delivered 80x50 exceeds"):
        dataclasses.replace(small_model(), sizes=too_large, default_ratio="16:9")


def test_inner_sizes_are_the_released_ones() -> None:
    large: TransformerConfig = dataclasses.replace(TRANSFORMER, hidden_size=5120)
    assert (large.mlp_inner_size(0), large.mlp_inner_size(1)) == (20480, 13652)
