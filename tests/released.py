"""A tiny model with random weights in the released layout, every part of it, saved by the libraries that carry them.

Also the words that make `happyhorse render model=magihuman_...` take it for the real one: only shapes and sizes differ.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from jobs.compose import compose_values
from jobs.settings import run_settings
from jobs.words import read_words
from model.codecs.normalisation import MEAN, SPREAD
from model.codecs.turbo import TurboConfig, TurboDecoder
from model.config import ModelConfig, TransformerConfig
from model.transformer import Transformer

TEXT_CHANNELS, RADIUS = 24, 2
AUDIO_CHANNELS = 8
TRANSFORMER = {
    "num_layers": 4,
    "hidden_size": 64,
    "head_dim": 16,
    "num_heads_q": 4,
    "num_heads_kv": 2,
    "audio_in_channels": AUDIO_CHANNELS,
    "text_in_channels": TEXT_CHANNELS,
    "mm_layers": [0, 3],
    "gelu7_layers": [0],
}
LOCAL = {**TRANSFORMER, "local_attn_layers": [0, 2, 3], "frame_receptive_field": RADIUS}
SMALL = {"latent_height": 4, "latent_width": 6, "height": 54, "width": 96}
LARGE = {"latent_height": 6, "latent_width": 10, "height": 90, "width": 160} | {
    "first_latent_height": SMALL["latent_height"],
    "first_latent_width": SMALL["latent_width"],
}
RESOLUTIONS = {"magihuman_540p": "540P", "magihuman_1080p": "1080P"}  # that go through super-resolution
TURBO_JSON: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 48,
    "decoder_block_out_channels": [4, 8, 12, 16],
    "decoder_causal": False,
    "decoder_layers_per_block": [2, 2, 2, 3, 3],
    "patch_size": 2,
    "patch_size_t": 1,
    "resnet_norm_eps": 1e-06,
    "scaling_factor": 1.0,
    "decoder_spatio_temporal_scaling": [False, True, True, True],
    "decoder_spatio_only": [False, True, False, False],
    "decoder_is_dw_conv": [False, False, False, False, False],
    "decoder_dw_kernel_size": 5,
    "temporal_compression_ratio": 4,
    "spatial_compression_ratio": 16,
    "first_chunk_size": 7,
    "step_size": 7,
    "use_unpatchify": True,
}
SENTENCES = (
    "A red circle stays still on a white background.",
    "一匹马在草地上奔跑",
    "Rain falls, and a bell rings twice.",
)


def released_words(model: str, *, first_stage: str) -> tuple[str, ...]:
    """What is typed after `happyhorse render` to run a `magihuman_*` model at the sizes of `write_released`."""
    words = {f"model.transformer.{key}": _grammar(value) for key, value in TRANSFORMER.items()}
    words |= {"model.sampling.steps": "2", "model.distilled.steps": "2"}
    sizes = {"256P": {"16:9": SMALL}}
    if model in RESOLUTIONS:
        sizes[RESOLUTIONS[model]] = {"16:9": LARGE}
        second = "model.super_resolution"
        words |= {f"{second}.transformer.{key}": _grammar(value) for key, value in enlarger(model).items()}
        words[f"{second}.sampling.steps"] = "2"
    words["model.sizes"] = _grammar(sizes)
    return (f"model={model}", f"model.first_stage={first_stage}", *(f"{key}={text}" for key, text in words.items()))


def _grammar(value: Any) -> str:
    """As hydra reads it: a colon in a key wants a backslash."""
    if isinstance(value, dict):
        pairs = (f"{key.replace(':', chr(92) + ':')}:{_grammar(item)}" for key, item in value.items())
        return "{" + ",".join(pairs) + "}"
    return json.dumps(value).replace(" ", "")


def enlarger(model: str) -> dict[str, Any]:
    """The shape of the second stage's Transformer."""
    return LOCAL if model == "magihuman_1080p" else TRANSFORMER


def released_model(model: str, *, first_stage: str, words: tuple[str, ...] = ()) -> ModelConfig:
    """The same as a value."""
    typed = ["manifest=m", "output=o", *released_words(model, first_stage=first_stage), *words]
    return run_settings(compose_values("render", read_words(typed))).model


def write_released(folder: Path) -> Path:
    """All parts below `folder`, a few MB, the same at every call."""
    torch.manual_seed(0)
    for model in ("magihuman_540p", "magihuman_1080p"):
        config = released_model(model, first_stage="distilled")
        assert config.super_resolution is not None
        _write_transformer(folder / config.super_resolution.part, config.super_resolution.transformer)
    for part in ("base", "distill"):
        _write_transformer(folder / part, config.transformer)
    write_turbo(folder / "turbo_vae", _turbo_state(), TURBO_JSON)
    _write_vaes(folder)
    _write_text_encoder(folder / "text_encoder")
    return folder


def _write_transformer(folder: Path, config: TransformerConfig) -> None:
    """Two shards and their index, as the large ones are."""
    with torch.device("meta"):
        layout = Transformer(config, dtype=torch.bfloat16).state_dict()
    state = {}
    for name, tensor in layout.items():
        spread = 0.02 if "norm" in name or name.endswith("bias") else tensor.shape[-1] ** -0.5
        state[name] = (torch.randn(tensor.shape) * spread).to(tensor.dtype)
    bands = len(state["adapter.rope.bands"])
    state["adapter.rope.bands"] = 10_000 ** (-torch.arange(bands) / bands)
    folder.mkdir(parents=True)
    files = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    places = {name: files[n % 2] for n, name in enumerate(state)}
    for file in files:
        save_file({name: tensor for name, tensor in state.items() if places[name] == file}, folder / file)
    size = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _turbo_state() -> dict[str, Tensor]:
    """Random, but a frame shows its own latent more than its neighbours', as in a trained decoder."""
    state = TurboDecoder(TurboConfig.from_json(TURBO_JSON)).state_dict()
    for tensor in state.values():
        if tensor.dim() == 5 and tensor.shape[2] == 3:  # time: before, now, after
            tensor[:, :, 0::2] *= 0.02
    return state


def write_turbo(folder: Path, state: dict[str, Tensor], config: dict[str, Any]) -> None:
    """A JSON beside a training checkpoint, whose averaged weights are those of a wrapped module."""
    folder.mkdir(parents=True)
    (folder / "TurboVAE.json").write_text(json.dumps(config))
    averaged = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"global_step": 7, "ema_state_dict": averaged}, folder / "checkpoint-7.ckpt")


def _write_vaes(folder: Path) -> None:
    from diffusers import AutoencoderKLWan, AutoencoderOobleck

    wan = AutoencoderKLWan(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=48,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=list(MEAN),
        latents_std=list(SPREAD),
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )
    wan.quant_conv.weight.data *= 10  # else images differ less than rounding does
    wan.save_pretrained(folder / "wan_vae")
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # diffusers' own, about weight_norm
        sound = AutoencoderOobleck(
            encoder_hidden_size=2 * AUDIO_CHANNELS, decoder_channels=4, decoder_input_channels=AUDIO_CHANNELS
        )
    sound.decoder.conv2.weight_g.data *= 0.3  # else it is clipped
    sound.save_pretrained(folder / "audio_vae")


def _write_text_encoder(folder: Path) -> None:
    """Encoder, decoder and head, of which the encoder is used; a Gemma tokenizer of a few hundred pieces."""
    from tokenizers.processors import TemplateProcessing
    from transformers import GemmaTokenizer, T5GemmaConfig, T5GemmaForConditionalGeneration

    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    bytes_ = [f"<0x{n:02X}>" for n in range(256)]
    letters = sorted({letter for sentence in SENTENCES for letter in sentence.replace(" ", "▁")} | {"▁"})
    vocabulary = {piece: n for n, piece in enumerate([*specials, *bytes_, *letters, "in", "at", "is", "ll"])}
    merges = [("i", "n"), ("a", "t"), ("i", "s"), ("l", "l")]
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=merges)
    begin = ("<bos>", vocabulary["<bos>"])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[begin])
    shape = {
        "vocab_size": len(vocabulary),
        "hidden_size": TEXT_CHANNELS,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 16,
    }
    config = T5GemmaConfig(encoder=dict(shape), decoder=dict(shape), vocab_size=len(vocabulary))
    model = T5GemmaForConditionalGeneration(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
