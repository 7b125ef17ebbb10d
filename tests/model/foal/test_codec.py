"""The picture codec, as it starts and as it ships: shapes, groups that do not know of each other, small errors."""

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.codecs.foal import WINDOW, FoalVideoCodec
from model.foal.codec_training import CHANNELS
from model.foal.scenes import RATIO_SIZES, draw_frames, random_scene
from model.foal.train import load_codec

SHIPPED = Path(__file__).parents[3] / "model" / "foal" / "weights"
LATENT_FRAMES = 2 * WINDOW + 3


@pytest.fixture(scope="module", params=["fresh", "shipped"])
def codec(request: pytest.FixtureRequest) -> FoalVideoCodec:
    root = SHIPPED if request.param == "shipped" else request.getfixturevalue("codec_weights")
    return load_codec(root).requires_grad_(False)


def frames_of(ratio: str, *, latent_frames: int = LATENT_FRAMES, scale: int = 1) -> Tensor:
    """As the bytes of a picture have them."""
    scene = random_scene(random.Random(3), duration_s=5, ratio=ratio)
    frames = draw_frames(scene, num_frames=4 * (latent_frames - 1) + 1, fps=12, scale=scale)
    return (frames * 255).round() / 255


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("ratio", RATIO_SIZES)
def test_a_picture_survives_it(codec: FoalVideoCodec, ratio: str, scale: int) -> None:
    frames = frames_of(ratio, scale=scale)
    latent = codec.encode(frames[None])
    height, width = (side * scale // 8 for side in RATIO_SIZES[ratio])
    assert latent.shape == (1, CHANNELS, LATENT_FRAMES, height, width)
    decoded = torch.cat(list(codec.decode(latent[0])))
    assert decoded.dtype == torch.uint8
    assert decoded.shape == frames.shape
    assert (decoded.float() / 255 - frames).square().mean().sqrt() < 0.04


def test_training_made_it_better(codec_weights: Path) -> None:
    errors = []
    for root in (codec_weights, SHIPPED):
        codec = load_codec(root).requires_grad_(False)
        clips = [frames_of(ratio) for ratio in RATIO_SIZES]
        decoded = [torch.cat(list(codec.decode(codec.encode(frames[None])[0]))).float() / 255 for frames in clips]
        errors.append(sum(float((a - b).abs().mean()) for a, b in zip(decoded, clips, strict=True)) / len(clips))
    fresh, shipped = errors
    assert shipped < 0.8 * fresh, errors


def test_an_image_is_a_clips_first_latent_frame(codec: FoalVideoCodec) -> None:
    frames = frames_of("16:9")
    first = codec.encode_image((frames[0] * 255).to(torch.uint8))
    assert first.shape == (CHANNELS, 1, 6, 10)
    assert torch.allclose(first, codec.encode(frames[None])[0, :, :1], atol=1e-4)


@pytest.mark.parametrize("latent_frames", [1, 2, WINDOW, WINDOW + 1, LATENT_FRAMES])
def test_windows_show_what_the_whole_shows(codec: FoalVideoCodec, latent_frames: int) -> None:
    latent = codec.encode(frames_of("1:1", latent_frames=latent_frames)[None])[0]
    windows = list(codec.decode(latent))
    assert len(windows) == -(-latent_frames // WINDOW)
    groups = codec.decoder(latent.transpose(0, 1)).unflatten(1, (4, 3)).flatten(0, 1)[3:]
    whole = ((groups / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1)
    assert whole.shape[0] == 4 * (latent_frames - 1) + 1
    assert (torch.cat(windows) - whole).abs().max() < 0.51  # rounding to bytes


def test_clips_of_a_batch_do_not_see_each_other(codec: FoalVideoCodec) -> None:
    clips = torch.stack([frames_of("1:1", latent_frames=3), frames_of("1:1", latent_frames=3).flip(2)])
    together = codec.encode(clips)
    assert all(torch.allclose(together[n], codec.encode(clips[n : n + 1])[0], atol=1e-5) for n in range(2))


def test_encoding_leaves_the_codec_as_it_is(codec: FoalVideoCodec) -> None:
    """Its modules are in training mode unless somebody says otherwise."""
    before = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    codec.encode_image(torch.zeros(64, 64, 3, dtype=torch.uint8))
    assert all(torch.equal(before[name], tensor) for name, tensor in codec.state_dict().items())
