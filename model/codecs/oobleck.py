"""Stable Audio Open's VAE through diffusers: audio latents to stereo sound, resampled to the delivered rate; given
sounds to audio latents.

C latent channels, L latents of 2048 samples each.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model.codecs.libraries import build_diffusers, fill, find_tensors
from model.codecs.parts import AUDIO
from model.config import ModelConfig
from model.sounds import resampled
from model.weights import TensorEntry, WeightReader, WeightsMismatch

PIECE = 100  # latents that are decoded at a time, so that memory does not grow with the clip
BESIDE = 12  # latents to either side of a piece that are computed with it: a sample depends on ten


class OobleckDecoder:
    """Runs in float32, as released."""

    def __init__(self, vae: Any, *, decoded_rate_hz: int, sample_rate_hz: int, device: str) -> None:
        self._vae, self._device = vae, device
        self._decoded_rate_hz = decoded_rate_hz
        self.sample_rate_hz = sample_rate_hz

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        waveform = torch.cat([self._piece(latent, start) for start in range(0, len(latent), PIECE)], dim=-1)
        num_samples = waveform.shape[-1] * self.sample_rate_hz // self._decoded_rate_hz
        return resampled(waveform, num_samples).clamp(-1, 1)

    def _piece(self, latent: Tensor, start: int) -> Tensor:
        """The samples of PIECE latents."""
        first, stop = max(0, start - BESIDE), min(len(latent), start + PIECE)
        piece = latent[first : stop + BESIDE].T[None].float().to(self._device)
        samples: Tensor = self._vae.decode(piece).sample[0].cpu()
        hop = samples.shape[-1] // piece.shape[-1]
        return samples[:, (start - first) * hop : (stop - first) * hop]


class OobleckEncoder:
    """Runs in float32; the posterior's mean, so that a sound is the same latent each time."""

    def __init__(self, vae: Any, *, encoded_rate_hz: int, device: str) -> None:
        self._vae, self._device = vae, device
        self.encoded_rate_hz = encoded_rate_hz

    @torch.inference_mode()
    def encode_sound(self, waveform: Tensor, /, *, num_latents: int) -> Tensor:
        whole = functional.pad(waveform, (0, num_latents * int(self._vae.hop_length) - waveform.shape[-1]))
        channels = int(self._vae.config.audio_channels)
        posterior = self._vae.encode(whole.expand(1, channels, -1).float().to(self._device)).latent_dist
        mean: Tensor = posterior.mean[0].T.cpu()
        return mean


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


def load_oobleck_encoder(model: ModelConfig, reader: WeightReader, *, device: str) -> OobleckEncoder:
    """The encoding half. Raises WeightsMismatch."""
    vae, entries = _find_oobleck(model, reader)
    fill(vae, reader, entries, dtype=torch.float32, device=device, kept=("encoder",))
    return OobleckEncoder(vae, encoded_rate_hz=model.audio_latents_per_s * int(vae.hop_length), device=device)


def check_oobleck(model: ModelConfig, reader: WeightReader) -> None:
    """Whether `audio_vae/` can be loaded; reads headers alone. Raises WeightsMismatch."""
    _find_oobleck(model, reader)


def _find_oobleck(model: ModelConfig, reader: WeightReader) -> tuple[Any, dict[str, TensorEntry]]:
    from diffusers import AutoencoderOobleck

    channels = model.transformer.audio_in_channels
    expected = {"decoder_input_channels": channels, "encoder_hidden_size": 2 * channels}  # mean and spread of each
    vae = build_diffusers(AutoencoderOobleck, reader, part=AUDIO, expected=expected)
    if vae.config.audio_channels not in (1, 2):
        raise WeightsMismatch(f"{AUDIO}/config.json: audio_channels is {vae.config.audio_channels}, expected 1 or 2")
    return vae, find_tensors(vae, reader, part=AUDIO)
