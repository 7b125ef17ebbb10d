"""The foal's codecs: a small trained one for pictures, a bank of sinusoids for sound.

Pictures: each latent cell stands for 8x8 pixels of one frame (the first latent frame) or of four (the others);
`model/foal/codec_training.py` trained it. Sound: each latent holds the amplitudes of 32 mel-spaced
sinusoids at two instants; phases are fixed. C latent channels, T latent frames, H W cells, L audio latents.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.shapes import TIME_STRIDE

BLOCK = 8  # pixels a cell and side
GROUP_CHANNELS = 3 * TIME_STRIDE
DECODER_CHANNELS = (64, 128)  # at 4 and at 8 pixels a cell
NORM_EPS = 1e-6
WINDOW = 8  # latent frames decoded at a time
AUDIO_LATENTS_PER_S = 12
SLOTS_PER_LATENT = 2
SLOTS_PER_S = AUDIO_LATENTS_PER_S * SLOTS_PER_LATENT
SAMPLE_RATE_HZ = 24_000
SLOT = SAMPLE_RATE_HZ // SLOTS_PER_S  # samples
SPECTRUM = 4096  # samples that a slot is filled up to, for its spectrum
NUM_BANDS = 32
HIGHEST_HZ = 4125  # half a band above the highest
AMPLITUDE_FLOOR = 0.01  # below it the loudness scale is linear, above it logarithmic
SILENCE = 0.08  # part of the loudness scale that counts as no sound at all
LATENT_GAIN, LATENT_OFFSET = 4.0, 0.5


def _mel(frequency_hz: float) -> float:
    return 2595 * math.log10(1 + frequency_hz / 700)


def _mel_spaced_hz(count: int, *, low_hz: float, high_hz: float) -> list[float]:
    low, high = _mel(low_hz), _mel(high_hz)
    return [700 * (10 ** ((low + (high - low) * n / (count - 1)) / 2595) - 1) for n in range(count)]


BAND_HZ = _mel_spaced_hz(NUM_BANDS, low_hz=60, high_hz=4000)


class Unit(nn.Module):
    """A residual pair of 3x3 convolutions, normed over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.square().mean(1, keepdim=True) + NORM_EPS
        hidden: Tensor = self.conv2(functional.silu(self.conv1(functional.silu(x * size.rsqrt()))))
        return x + hidden


class Decoder(nn.Module):
    """The way back: [n, C, H, W] -> [n, 12, 8H, 8W] in about -1..1. A linear map, and a network that mends edges."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide, deep = DECODER_CHANNELS
        self.blocks = nn.ConvTranspose2d(channels, GROUP_CHANNELS, BLOCK, stride=BLOCK)
        self.edges = nn.Sequential(
            nn.Conv2d(channels, deep, 3, padding=1),
            Unit(deep),
            Unit(deep),
            nn.Conv2d(deep, 4 * wide, 1),
            nn.PixelShuffle(2),
            Unit(wide),
            Unit(wide),
            nn.Conv2d(wide, 16 * GROUP_CHANNELS, 1),
            nn.PixelShuffle(4),
        )

    def forward(self, latent: Tensor) -> Tensor:
        frames: Tensor = self.blocks(latent) + self.edges(latent)
        return frames


class FoalVideoCodec(nn.Module):
    """Each group of four frames is coded alone; the first frame is a group that stands still.

    The encoder is linear: principal components of 8x8 blocks, fitted in closed form. The decoder is trained.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(GROUP_CHANNELS, channels, BLOCK, stride=BLOCK)
        self.decoder = Decoder(channels)

    @classmethod
    def as_stored(cls, channels: int) -> "FoalVideoCodec":
        """To be filled from a file, which holds the decoder in bfloat16; `float()` then makes it usable."""
        codec = cls(channels)
        codec.decoder.to(torch.bfloat16)
        return codec

    def encode(self, frames: Tensor) -> Tensor:
        """float [n, 4(T-1)+1, H*8, W*8, 3] in 0..1 -> [n, C, T, H, W]."""
        whole = torch.cat([frames[:, :1].expand(-1, TIME_STRIDE - 1, -1, -1, -1), frames], dim=1)
        groups = whole.permute(0, 1, 4, 2, 3).reshape(-1, GROUP_CHANNELS, *frames.shape[2:4])
        latent: Tensor = self.encoder(groups * 2 - 1)
        by_clip: Tensor = latent.unflatten(0, (len(frames), -1)).transpose(1, 2)
        return by_clip

    @torch.no_grad()
    def encode_image(self, image: Tensor) -> Tensor:
        return self.encode(image[None, None].float() / 255)[0]

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Iterator[Tensor]:
        for start in range(0, latent.shape[1], WINDOW):
            groups = self.decoder(latent[:, start : start + WINDOW].transpose(0, 1))
            frames = groups.unflatten(1, (TIME_STRIDE, 3)).flatten(0, 1)
            yield _to_bytes(frames[TIME_STRIDE - 1 :] if start == 0 else frames)


def _to_bytes(frames: Tensor) -> Tensor:
    """[n, 3, height, width] in about -1..1 -> uint8 [n, height, width, 3]."""
    return ((frames / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def heard_amplitudes(waveform: Tensor, *, num_slots: int) -> Tensor:
    """[samples] at SAMPLE_RATE_HZ -> [num_slots, bands]: how loud each sinusoid is in each instant's own piece.

    Least squares, which takes a sound of the bank apart again; what no sinusoid explains counts for the band that its
    frequency is next to, so that any sound is heard.
    """
    window = torch.hann_window(SLOT + 2, periodic=False)[1:-1]
    pieces = functional.pad(waveform, (0, max(0, num_slots * SLOT - len(waveform)))).unfold(0, SLOT, SLOT)[:num_slots]
    pieces = pieces * window
    times_s, bands_hz = torch.arange(SLOT) / SAMPLE_RATE_HZ, torch.tensor(BAND_HZ)
    angles = 2 * math.pi * bands_hz[:, None] * times_s
    bank = torch.cat([angles.sin(), angles.cos()]) * window
    parts = pieces @ torch.linalg.pinv(bank.double()).float()
    power = torch.fft.rfft(pieces - parts @ bank, SPECTRUM).abs().square()
    frequencies_hz = torch.arange(SPECTRUM // 2 + 1) * SAMPLE_RATE_HZ / SPECTRUM
    nearest = functional.one_hot((frequencies_hz[:, None] - bands_hz).abs().argmin(1), NUM_BANDS).float()
    nearest[frequencies_hz > HIGHEST_HZ] = 0
    unexplained = power @ nearest * 4 / (SPECTRUM * window.square().sum())  # a lone sine's is its amplitude squared
    amplitudes: Tensor = (parts[:, :NUM_BANDS].square() + parts[:, NUM_BANDS:].square() + unexplained).sqrt()
    return amplitudes


class FoalAudioCodec:
    sample_rate_hz = encoded_rate_hz = SAMPLE_RATE_HZ

    def encode_sound(self, waveform: Tensor, /, *, num_latents: int) -> Tensor:
        return self.encode(heard_amplitudes(waveform, num_slots=num_latents * SLOTS_PER_LATENT))

    def encode(self, amplitudes: Tensor) -> Tensor:
        """Band amplitudes [L*2, bands] -> latent [L, 2*bands]."""
        loudness = torch.log1p(amplitudes / AMPLITUDE_FLOOR) / math.log1p(1 / AMPLITUDE_FLOOR)
        return (loudness * LATENT_GAIN - LATENT_OFFSET).reshape(-1, SLOTS_PER_LATENT * NUM_BANDS)

    def decode(self, latent: Tensor) -> Tensor:
        loudness = (latent.reshape(-1, NUM_BANDS) + LATENT_OFFSET) / LATENT_GAIN
        loudness = torch.where(loudness > SILENCE, loudness.clamp(max=1), 0)
        amplitudes = AMPLITUDE_FLOOR * torch.expm1(loudness * math.log1p(1 / AMPLITUDE_FLOOR))
        num_samples = amplitudes.shape[0] * SAMPLE_RATE_HZ // SLOTS_PER_S
        smooth = functional.interpolate(amplitudes.T[None], size=num_samples, mode="linear", align_corners=False)[0]
        times_s = torch.arange(num_samples, dtype=torch.float64) / SAMPLE_RATE_HZ
        waveform = torch.zeros(num_samples)
        for band, frequency_hz in enumerate(BAND_HZ):
            phase = band * band * 0.7  # spread, so that peaks of the bands do not add up
            waveform += smooth[band] * torch.sin(2 * math.pi * frequency_hz * times_s + phase).float()
        return waveform.clamp(-1, 1)[None]
