"""Wan 2.2's video VAE through diffusers: first frames to latents, and latents to frames one latent frame at a time.

C latent channels, T latent frames, H and W cells of 16 x 16 pixels.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from model.codecs.libraries import build_diffusers, fill, find_tensors
from model.codecs.normalisation import denormalised, eight_bit, normalised
from model.codecs.parts import WAN
from model.config import ModelConfig
from model.weights import TensorEntry, WeightReader

ENCODES, DECODES = ("encoder", "quant_conv"), ("post_quant_conv", "decoder")


class WanImageEncoder:
    """The half of the VAE that encodes; the release runs it in bfloat16."""

    def __init__(self, vae: Any, *, dtype: torch.dtype, device: str) -> None:
        self._vae, self._dtype, self._device = vae, dtype, device

    @torch.inference_mode()
    def encode_image(self, image: Tensor) -> Tensor:
        pixels = image.to(self._device).float() / 127.5 - 1
        posterior = self._vae.encode(pixels.permute(2, 0, 1)[None, :, None].to(self._dtype)).latent_dist
        return normalised(posterior.mean[0].float()).cpu()


class WanVideoDecoder:
    """The half of the VAE that decodes, in memory that does not grow with the clip."""

    def __init__(self, vae: Any, *, dtype: torch.dtype, device: str) -> None:
        self._vae, self._dtype, self._device = vae, dtype, device

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Iterator[Tensor]:
        """What `AutoencoderKLWan.decode` does, without waiting for the last frame: the convolutions' memory of earlier
        frames is the VAE's own cache.
        """
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        vae = self._vae
        hidden = vae.post_quant_conv(denormalised(latent.to(self._device).float())[None].to(self._dtype))
        vae.clear_cache()
        for n in range(latent.shape[1]):
            vae._conv_idx = [0]
            first = {"first_chunk": True} if n == 0 else {}
            frames = vae.decoder(hidden[:, :, n : n + 1], feat_cache=vae._feat_map, feat_idx=vae._conv_idx, **first)
            if vae.config.patch_size is not None:
                frames = unpatchify(frames, patch_size=vae.config.patch_size)
            yield eight_bit(frames[0])
        vae.clear_cache()


def load_wan(model: ModelConfig, reader: WeightReader, *, kept: tuple[str, ...], device: str) -> Any:
    """`AutoencoderKLWan` from `wan_vae/` with the children `kept` alone. Raises WeightsMismatch."""
    vae, entries = _find_wan(model, reader)
    fill(vae, reader, entries, dtype=getattr(torch, model.compute_dtype), device=device, kept=kept)
    return vae


def check_wan(model: ModelConfig, reader: WeightReader) -> None:
    """Whether `wan_vae/` can be loaded; reads headers alone. Raises WeightsMismatch."""
    _find_wan(model, reader)


def _find_wan(model: ModelConfig, reader: WeightReader) -> tuple[Any, dict[str, TensorEntry]]:
    from diffusers import AutoencoderKLWan

    expected = {"z_dim": model.transformer.video_latent_channels, "scale_factor_spatial": model.spatial_scale}
    vae = build_diffusers(AutoencoderKLWan, reader, part=WAN, expected=expected)
    return vae, find_tensors(vae, reader, part=WAN)
