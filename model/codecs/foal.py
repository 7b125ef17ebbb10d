"""The foal's codecs: a linear space-time block codec for pictures, a bank of sinusoids for sound.

Pictures: each latent cell is an 8x8 block of one frame (the first latent frame) or of four (the others), projected on
principal components that `model.foal.train` fitted. Sound: each latent holds the amplitudes of 32 mel-spaced
sinusoids at two instants; phases are fixed. C latent channels, T latent frames, H W cells, L audio latents.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from model.shapes import TIME_STRIDE

BLOCK = 8  # pixels a cell and side
AUDIO_LATENTS_PER_S = 12
SLOTS_PER_LATENT = 2
SLOTS_PER_S = AUDIO_LATENTS_PER_S * SLOTS_PER_LATENT
SAMPLE_RATE_HZ = 24_000
NUM_BANDS = 32
AMPLITUDE_FLOOR = 0.01  # below it the loudness scale is linear, above it logarithmic
SILENCE = 0.08  # part of the loudness scale that counts as no sound at all
LATENT_GAIN, LATENT_OFFSET = 4.0, 0.5
WINDOW = 8  # latent frames decoded at a time


def _mel(frequency_hz: float) -> float:
    return 2595 * math.log10(1 + frequency_hz / 700)


def _mel_spaced_hz(count: int, *, low_hz: float, high_hz: float) -> list[float]:
    low, high = _mel(low_hz), _mel(high_hz)
    return [700 * (10 ** ((low + (high - low) * n / (count - 1)) / 2595) - 1) for n in range(count)]


BAND_HZ = _mel_spaced_hz(NUM_BANDS, low_hz=60, high_hz=4000)


class BlockProjection(nn.Module):
    """Blocks of `num_frames` x 8 x 8 pixels <-> C coefficients, scaled to about unit size."""

    basis: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int, *, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        size = num_frames * BLOCK * BLOCK * 3
        self.register_buffer("basis", torch.empty(channels, size))  # orthonormal rows
        self.register_buffer("mean", torch.empty(size))
        self.register_buffer("scale", torch.empty(channels))

    def encode(self, frames: Tensor) -> Tensor:
        """[T*num_frames, H*8, W*8, 3] in 0..1 -> [C, T, H, W]."""
        height, width = frames.shape[1] // BLOCK, frames.shape[2] // BLOCK
        blocks = frames.reshape(-1, self.num_frames, height, BLOCK, width, BLOCK, 3).permute(0, 2, 4, 1, 3, 5, 6)
        coefficients = (blocks.flatten(3) - self.mean) @ self.basis.T / self.scale
        return coefficients.permute(3, 0, 1, 2)

    def decode(self, latent: Tensor) -> Tensor:
        """[C, T, H, W] -> [T*num_frames, H*8, W*8, 3] in 0..1."""
        _, t, height, width = latent.shape
        blocks = (latent.permute(1, 2, 3, 0) * self.scale) @ self.basis + self.mean
        frames = blocks.reshape(t, height, width, self.num_frames, BLOCK, BLOCK, 3).permute(0, 3, 1, 4, 2, 5, 6)
        return frames.reshape(t * self.num_frames, height * BLOCK, width * BLOCK, 3).clamp(0, 1)


class FoalVideoCodec(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = BlockProjection(channels, num_frames=1)
        self.rest = BlockProjection(channels, num_frames=TIME_STRIDE)

    def encode(self, frames: Tensor) -> Tensor:
        """float [4(T-1)+1, H*8, W*8, 3] in 0..1 -> [C, T, H, W]."""
        return torch.cat([self.first.encode(frames[:1]), self.rest.encode(frames[1:])], dim=1)

    def encode_image(self, image: Tensor) -> Tensor:
        return self.first.encode(image[None].float() / 255)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Iterator[Tensor]:
        yield _to_bytes(self.first.decode(latent[:, :1]))
        for start in range(1, latent.shape[1], WINDOW):
            yield _to_bytes(self.rest.decode(latent[:, start : start + WINDOW]))


def _to_bytes(frames: Tensor) -> Tensor:
    return (frames * 255).round().to(torch.uint8)


class FoalAudioCodec:
    sample_rate_hz = SAMPLE_RATE_HZ

    def encode(self, amplitudes: Tensor) -> Tensor:
        """Band amplitudes [L*2, bands] -> latent [L, 2*bands]."""
        loudness = torch.log1p(amplitudes / AMPLITUDE_FLOOR) / math.log1p(1 / AMPLITUDE_FLOOR)
        return (loudness * LATENT_GAIN - LATENT_OFFSET).reshape(-1, SLOTS_PER_LATENT * NUM_BANDS)

    def decode(self, latent: Tensor) -> Tensor:
        loudness = (latent.reshape(-1, NUM_BANDS) + LATENT_OFFSET) / LATENT_GAIN
        loudness = torch.where(loudness > SILENCE, loudness.clamp(max=1), 0)
        amplitudes = AMPLITUDE_FLOOR * torch.expm1(loudness * math.log1p(1 / AMPLITUDE_FLOOR))
        num_samples = amplitudes.shape[0] * SAMPLE_RATE_HZ // SLOTS_PER_S
        smooth = nn.functional.interpolate(amplitudes.T[None], size=num_samples, mode="linear", align_corners=False)[
            0
        ]  # [bands, samples]
        times_s = torch.arange(num_samples, dtype=torch.float64) / SAMPLE_RATE_HZ
        waveform = torch.zeros(num_samples)
        for band, frequency_hz in enumerate(BAND_HZ):
            phase = band * band * 0.7  # spread, so that peaks of the bands do not add up
            waveform += smooth[band] * torch.sin(2 * math.pi * frequency_hz * times_s + phase).float()
        return waveform.clamp(-1, 1)[None]
