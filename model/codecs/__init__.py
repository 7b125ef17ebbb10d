"""Builds what stands around a model's Transformers with its weights: the foal's codecs, or those of the release.

The foal's lie in `codec/` below the weights root; `model/codecs/parts.py` says where the others do. diffusers is
imported in here alone, when one of its codecs is built.
"""

import torch

from model.codecs.foal import FoalAudioCodec, FoalVideoCodec
from model.codecs.interfaces import AudioDecoder, ImageEncoder, SoundEncoder, VideoDecoder
from model.config import ModelConfig
from model.weights import WeightReader, load_module


def build_image_encoder(model: ModelConfig, reader: WeightReader, *, device: str = "cpu") -> ImageEncoder:
    if model.codecs.video == "foal":
        return _foal_video(model, reader)
    from model.codecs.wan import ENCODES, WanImageEncoder, load_wan

    vae = load_wan(model, reader, kept=ENCODES, device=device)
    return WanImageEncoder(vae, dtype=_dtype(model), device=device)


def build_video_decoder(model: ModelConfig, reader: WeightReader, *, device: str = "cpu") -> VideoDecoder:
    if model.codecs.video == "foal":
        return _foal_video(model, reader)
    if model.codecs.video == "turbo":
        from model.codecs.turbo_weights import load_turbo

        return load_turbo(reader, dtype=_dtype(model), device=device, band_rows=model.codecs.band_rows)
    from model.codecs.wan import DECODES, WanVideoDecoder, load_wan

    vae = load_wan(model, reader, kept=DECODES, device=device)
    return WanVideoDecoder(vae, dtype=_dtype(model), device=device)


def build_audio_decoder(model: ModelConfig, reader: WeightReader, *, device: str = "cpu") -> AudioDecoder:
    """The foal's sinusoid bank has no weights."""
    if model.codecs.audio == "foal":
        return FoalAudioCodec()
    from model.codecs.oobleck import load_oobleck

    return load_oobleck(model, reader, device=device)


def build_sound_encoder(model: ModelConfig, reader: WeightReader, *, device: str = "cpu") -> SoundEncoder:
    if model.codecs.audio == "foal":
        return FoalAudioCodec()
    from model.codecs.oobleck import load_oobleck_encoder

    return load_oobleck_encoder(model, reader, device=device)


def _foal_video(model: ModelConfig, reader: WeightReader) -> FoalVideoCodec:
    codec = FoalVideoCodec.as_stored(model.transformer.video_latent_channels)
    load_module(codec, reader, part="codec")
    return codec.float()


def _dtype(model: ModelConfig) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, model.compute_dtype)
    return dtype
