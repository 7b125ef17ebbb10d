"""Given sounds at the rate and length of a clip. Files are decoded elsewhere; encoding is a codec's."""

import torch
from torch import Tensor


def fitted(waveform: Tensor, *, rate_hz: int, to_rate_hz: int, seconds: int) -> Tensor:
    """[channels, n] -> [channels, seconds * to_rate_hz] in -1..1: cut, or filled with silence, then resampled.

    The ends are mirrored for it: the spectrum of a piece alone would take its last sample for a neighbour of the first.
    """
    wanted = seconds * rate_hz
    piece = torch.nn.functional.pad(waveform[:, :wanted], (0, max(0, wanted - waveform.shape[1])))
    if rate_hz != to_rate_hz:
        both = torch.cat([piece, piece.flip(-1)], dim=-1)
        piece = resampled(both, 2 * seconds * to_rate_hz)[:, : seconds * to_rate_hz]
    return piece.clamp(-1, 1)


def mono(waveform: Tensor) -> Tensor:
    """[channels, n] -> [n], the mean."""
    return waveform.mean(dim=0)


def delivered(waveform: Tensor) -> Tensor:
    """As many channels as files are delivered with: one and two stay, more are mixed to one."""
    return waveform if waveform.shape[0] <= 2 else mono(waveform)[None]


def resampled(waveform: Tensor, num_samples: int) -> Tensor:
    """[channels, n] -> [channels, num_samples] by cutting or padding the spectrum, as `scipy.signal.resample` does."""
    n = waveform.shape[-1]
    spectrum = torch.fft.rfft(waveform.double())
    kept = min(n, num_samples)
    cut = spectrum.new_zeros((*spectrum.shape[:-1], num_samples // 2 + 1))
    cut[..., : kept // 2 + 1] = spectrum[..., : kept // 2 + 1]
    if kept % 2 == 0 and n != num_samples:  # the middle frequency stands for two where it is an end, for one elsewhere
        cut[..., kept // 2] *= 2 if num_samples < n else 0.5
    scaled: Tensor = torch.fft.irfft(cut, num_samples) * (num_samples / n)
    return scaled.to(waveform.dtype)
