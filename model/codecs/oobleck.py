"""Stable Audio Open's VAE through diffusers: audio latents to stereo sound, resampled to the delivered rate.

C latent channels, L latents of 2048 samples each.
"""

from typing import Any

import torch
from torch import Tensor

from model.codecs.libraries import build_diffusers, fill, find_tensors
from model.codecs.parts import AUDIO
from model.config import ModelConfig
from model.weights import TensorEntry, WeightReader, WeightsMismatch


class OobleckDecoder:
    """Runs in float32, as released."""

    def __init__(self, vae: Any, *, decoded_rate_hz: int, sample_rate_hz: int, device: str) -> None:
        self._vae, self._device = vae, device
        self._decoded_rate_hz = decoded_rate_hz
        self.sample_rate_hz = sample_rate_hz

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        waveform: Tensor = self._vae.decode(latent.T[None].float().to(self._device)).sample[0].cpu()
        num_samples = waveform.shape[-1] * self.sample_rate_hz // self._decoded_rate_hz
        return resampled(waveform, num_samples).clamp(-1, 1)


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


def load_oobleck(model: ModelConfig, reader: WeightReader, *, device: str) -> OobleckDecoder:
    """The decoding half, from `audio_vae/`. Raises WeightsMismatch."""
    vae, entries = _find_oobleck(model, reader)
    fill(vae, reader, entries, dtype=torch.float32, device=device, kept=("decoder",))
    return OobleckDecoder(
        vae,
        decoded_rate_hz=model.audio_latents_per_s * int(vae.hop_length),
        sample_rate_hz=model.sample_rate_hz,
        device=device,
    )


def check_oobleck(model: ModelConfig, reader: WeightReader) -> None:
    """Whether `audio_vae/` can be loaded; reads headers alone. Raises WeightsMismatch."""
    _find_oobleck(model, reader)


def _find_oobleck(model: ModelConfig, reader: WeightReader) -> tuple[Any, dict[str, TensorEntry]]:
    from diffusers import AutoencoderOobleck

    expected = {"decoder_input_channels": model.transformer.audio_in_channels}
    vae = build_diffusers(AutoencoderOobleck, reader, part=AUDIO, expected=expected)
    if vae.config.audio_channels not in (1, 2):
        raise WeightsMismatch(f"{AUDIO}/config.json: audio_channels is {vae.config.audio_channels}, expected 1 or 2")
    return vae, find_tensors(vae, reader, part=AUDIO)
