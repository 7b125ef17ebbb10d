"""Builds a model's codecs with their weights from `codec/` below the weights root; the foal's are the only ones yet."""

from model.codecs.foal import FoalAudioCodec, FoalVideoCodec
from model.codecs.interfaces import AudioCodec, VideoCodec
from model.config import ModelConfig
from model.weights import WeightReader, load_module


def build_video_codec(model: ModelConfig, reader: WeightReader) -> VideoCodec:
    codec = FoalVideoCodec(model.transformer.video_latent_channels)
    load_module(codec, reader, part="codec")
    return codec


def build_audio_codec(model: ModelConfig, reader: WeightReader) -> AudioCodec:
    """The foal's sinusoid bank has no weights; `reader` serves codecs that do."""
    return FoalAudioCodec()
