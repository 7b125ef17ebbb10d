"""Fits the foal's picture codec: principal components of 8x8 blocks of drawn scenes, in closed form."""

import random

import torch
from torch import Tensor

from model.codecs.foal import BLOCK, BlockProjection, FoalVideoCodec
from model.foal.scenes import RATIO_SIZES, draw_frames, random_scene
from model.shapes import decoded_frames, latent_frames


def fit_video_codec(channels: int, *, seed: int, fps: int, num_scenes: int = 300) -> FoalVideoCodec:
    """The codec whose C components keep most of the energy of blocks from `num_scenes` scenes."""
    rng = random.Random(f"codec/{seed}")
    scenes = [random_scene(rng, duration_s=3, ratio=rng.choice(list(RATIO_SIZES))) for _ in range(num_scenes)]
    num_frames = decoded_frames(latent_frames(3 * fps))
    films = [draw_frames(scene, num_frames=num_frames, fps=fps) for scene in scenes]
    codec = FoalVideoCodec(channels)
    _fit(codec.first, torch.cat([_blocks(film, num_frames=1) for film in films]))
    _fit(codec.rest, torch.cat([_blocks(film[1:], num_frames=codec.rest.num_frames) for film in films]))
    return codec


def _blocks(frames: Tensor, *, num_frames: int) -> Tensor:
    height, width = frames.shape[1] // BLOCK, frames.shape[2] // BLOCK
    blocks = frames.reshape(-1, num_frames, height, BLOCK, width, BLOCK, 3).permute(0, 2, 4, 1, 3, 5, 6)
    return blocks.reshape(-1, num_frames * BLOCK * BLOCK * 3)


def _fit(projection: BlockProjection, blocks: Tensor) -> None:
    """Components by energy; coefficients are divided by the root of their spread, between raw and whitened."""
    mean = blocks.mean(0)
    covariance = ((blocks - mean).T @ (blocks - mean)).double() / len(blocks)
    values, vectors = torch.linalg.eigh(covariance)
    keep = values.argsort(descending=True)[: projection.basis.shape[0]]
    spread = values[keep].clamp(min=0).sqrt()
    projection.mean.copy_(mean)
    projection.basis.copy_(vectors[:, keep].T)
    damped = spread.sqrt()
    projection.scale.copy_(damped * damped.square().mean().sqrt())
