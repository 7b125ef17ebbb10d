"""The Turbo decoder window by window against the whole clip at once: seconds and the memory that grows with neither."""

import dataclasses
from collections.abc import Callable

import torch

from model.codecs.turbo import TurboDecoder
from tests.allocations import Allocations
from tests.bench.figures import Figure
from tests.bench.gpu.models import random_decoder
from tests.bench.gpu.targets import TURBO
from tests.bench.model import gain

CONFIG = dataclasses.replace(TURBO, decoder_block_out_channels=(16, 32, 64, 128))  # a quarter of the released width
LATENTS = (14, 42)  # frames, of 96 x 96 pixels (smaller ones get another convolution from torch)


def figures() -> dict[str, Figure]:
    torch.set_num_threads(1)
    found: dict[str, Figure] = {}
    for frames in LATENTS:
        latent = torch.randn(48, frames, 6, 6, generator=torch.Generator().manual_seed(0))
        windows, whole = (_decoder(size) for size in (CONFIG.first_chunk_size, frames))
        at = f"{frames} latent frames"
        found[f"{at}: in windows against whole"] = Figure(
            value=gain(lambda: _decode(whole, latent), lambda: _decode(windows, latent)),  # noqa: B023
            unit="x",
        )
        for name, decoder in (("whole", whole), ("in windows", windows)):
            peak = _peak_bytes(lambda: _decode(decoder, latent))  # noqa: B023
            found[f"{at}: most memory, {name}"] = Figure(value=peak / 1e6, unit="MB")
    return found


def _decoder(window: int) -> TurboDecoder:
    torch.manual_seed(0)
    return random_decoder(dataclasses.replace(CONFIG, first_chunk_size=window), device="cpu").float()


def _decode(decoder: TurboDecoder, latent: torch.Tensor) -> int:
    """Frames, let go window by window, as the finisher does."""
    count: int = sum(len(frames) for frames in decoder.decode(latent))
    return count


def _peak_bytes(run: Callable[[], object]) -> int:
    with Allocations() as made:
        run()
    peak: int = made.peak_bytes
    return peak
