"""Makes the foal's picture codec: an encoder in closed form, and a decoder trained to undo it with noise on the way.

The noise is there because the Transformers' latents are never exact.
"""

import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.codecs.foal import BLOCK, GROUP_CHANNELS, Decoder, FoalVideoCodec
from model.foal.scenes import BACKGROUNDS, COLOURS, FPS, RATIO_SIZES, draw_coverage, random_scene
from model.foal.training import Recipe, Task
from model.shapes import TIME_STRIDE

CHANNELS = 48
SAMPLE_GROUPS = 4  # moments taken from one scene
CROP = 48  # their height and width in pixels
STANDING = 0.15  # of them are one frame four times, as a clip's first frame is
LARGE = 0.35  # of the samples are cut from 128P pictures
STRANGE = 0.25  # of the samples show colours that no name of the world stands for
NOISE = 0.15  # greatest size of the noise on the latents, whose channels have size 1 in the mean
SLOPES = 0.5  # weight of the error of differences between neighbouring pixels, which keeps edges sharp


class CodecTask(Task):
    def __init__(self, recipe: Recipe, *, weights: Path, device: str) -> None:
        self.recipe, self.weights, self.device = recipe, weights, device
        torch.manual_seed(recipe.seed)
        codec = FoalVideoCodec(CHANNELS)
        _fit_components(codec, seed=recipe.seed)
        self.encoder = codec.encoder.requires_grad_(False).to(device)
        self.model: Decoder = codec.decoder.to(device)

    def losses(self, step: int, average: nn.Module) -> dict[str, Tensor]:
        rng = random.Random(f"codec/{self.recipe.seed}/{step}")
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        groups = torch.cat([_sample(rng) for _ in range(self.recipe.batch_size)]).to(self.device)
        latent = self.encoder(groups)
        level = torch.rand(len(latent), 1, 1, 1, generator=generator) * NOISE
        noise = (level * torch.randn(latent.shape, generator=generator)).to(self.device)
        with torch.autocast(self.device, torch.bfloat16):
            decoded = self.model(latent + noise)
        error = decoded.float() - groups
        slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return {"pixels": error.abs().mean(), "squares": error.square().mean(), "slopes": SLOPES * slopes}

    def export(self, average: nn.Module) -> None:
        (self.weights / "codec").mkdir(parents=True, exist_ok=True)
        stored = FoalVideoCodec.as_stored(CHANNELS)
        stored.encoder.load_state_dict(self.encoder.state_dict())
        stored.decoder.load_state_dict(average.state_dict())
        save_file(stored.state_dict(), self.weights / "codec" / "model.safetensors")


def _sample(rng: random.Random) -> Tensor:
    """[SAMPLE_GROUPS, 12, CROP, CROP] in -1..1: moments of a scene in its own colours or in strange ones."""
    large = rng.random() < LARGE
    scene = random_scene(rng, duration_s=3, ratio=rng.choice(list(RATIO_SIZES)) if large else "1:1", places="any")
    coverage = draw_coverage(scene, num_frames=3 * FPS, fps=FPS, scale=2 if large else 1)
    colour, background = torch.tensor(COLOURS[scene.colour]), torch.tensor(BACKGROUNDS[scene.background])
    if rng.random() < STRANGE:
        colour, background = (torch.tensor([rng.random() for _ in range(3)]) for _ in range(2))
    groups = []
    for _ in range(SAMPLE_GROUPS):
        top, left = (rng.randrange(side - CROP + 1) for side in coverage.shape[1:3])
        start = rng.randrange(len(coverage) - TIME_STRIDE + 1)
        times = [start] * TIME_STRIDE if rng.random() < STANDING else range(start, start + TIME_STRIDE)
        frames = background + coverage[times, top : top + CROP, left : left + CROP] * (colour - background)
        groups.append(frames.permute(0, 3, 1, 2).flatten(0, 1) * 2 - 1)
    return torch.stack(groups)


@torch.no_grad()
def _fit_components(codec: FoalVideoCodec, *, seed: int) -> None:
    """Components by energy. Latents are the coefficients over the root of their spread: between raw and whitened."""
    rng = random.Random(f"codec/{seed}/components")
    groups = torch.cat([_sample(rng) for _ in range(600)])
    blocks = groups.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    mean = blocks.mean(0)
    values, vectors = torch.linalg.eigh(((blocks - mean).T @ (blocks - mean)).double() / len(blocks))
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()  # whatever sign eigh chose
    basis, spread = vectors[:, -CHANNELS:].T.float(), values[-CHANNELS:].sqrt().float()
    scale = (spread * spread.mean()).sqrt()
    there, back = codec.encoder, codec.decoder.blocks
    there.weight.copy_((basis / scale[:, None]).unflatten(1, there.weight.shape[1:]))
    back.weight.copy_((basis * scale[:, None]).unflatten(1, back.weight.shape[1:]))
    _set_bias(there, -(basis @ mean) / scale)
    _set_bias(back, mean.unflatten(0, (GROUP_CHANNELS, -1)).mean(1))
    for parameter in codec.decoder.edges[-2].parameters():
        parameter.zero_()


def _set_bias(convolution: nn.Conv2d | nn.ConvTranspose2d, values: Tensor) -> None:
    assert convolution.bias is not None  # they are made with one
    convolution.bias.copy_(values)
