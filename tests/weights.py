"""A model that can go through all stages, and random weights for it. Its pictures are noise."""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from model.codecs.foal import FoalVideoCodec
from model.config import ModelConfig, SuperResolutionConfig, SuperResolutionStage
from model.text import FoalTextEncoder
from model.transformer import Transformer
from tests.models import small_model

WORDS = ("a", "red", "blue", "ball", "square", "moves", "left", "right", "prompt", "for")


def noise_model() -> ModelConfig:
    """The small model with what the foal's codecs and text encoder need."""
    model = small_model("noise")
    transformer = dataclasses.replace(
        model.transformer, num_layers=2, mm_layers=(0,), audio_in_channels=64, text_in_channels=48
    )
    return dataclasses.replace(model, transformer=transformer)


def two_stage_model() -> ModelConfig:
    """The same, with super-resolution at 128P."""
    model = noise_model()
    small, large = model.sizes["64P"], model.sizes["128P"]
    first = {
        ratio: {"first_latent_height": small[ratio].latent_height, "first_latent_width": small[ratio].latent_width}
        for ratio in large
    }
    stage = SuperResolutionStage(
        part="128p_sr",
        transformer=dataclasses.replace(model.transformer, coords_style="v1"),
        sampling=SuperResolutionConfig(steps=2),
    )
    sizes = {"64P": small, "128P": {ratio: dataclasses.replace(large[ratio], **first[ratio]) for ratio in large}}
    return dataclasses.replace(model, sizes=sizes, super_resolution=stage)


def write_weights(folder: Path, model: ModelConfig) -> Path:
    """base/, codec/ and text/ below `folder`, and the part of its super-resolution; the same at every call."""
    generator = torch.Generator().manual_seed(0)
    parts = {"base": model.transformer}
    if model.super_resolution is not None:
        parts[model.super_resolution.part] = model.super_resolution.transformer
    for name, shape in parts.items():
        with torch.device("meta"):
            transformer = Transformer(shape)
        _write_part(folder / name, transformer, generator)
    return write_codecs(folder, model, generator)


def write_codecs(folder: Path, model: ModelConfig, generator: torch.Generator) -> Path:
    """codec/ and text/."""
    _write_part(folder / "codec", FoalVideoCodec.as_stored(model.transformer.video_latent_channels), generator)
    text = FoalTextEncoder(WORDS, channels=model.transformer.text_in_channels)
    _write_part(folder / "text", text, generator, metadata={"vocabulary": json.dumps(WORDS)})
    return folder


def _write_part(
    folder: Path, module: nn.Module, generator: torch.Generator, *, metadata: dict[str, str] | None = None
) -> None:
    folder.mkdir(parents=True)
    state = {
        name: (torch.randn(tensor.shape, generator=generator) * 0.05).to(tensor.dtype)
        for name, tensor in module.state_dict().items()
    }
    save_file(state, folder / "model.safetensors", metadata=metadata)
