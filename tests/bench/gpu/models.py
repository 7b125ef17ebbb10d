"""Transformers and a Turbo decoder of random numbers, made on the card itself: 30 GB never lie in the host's memory."""

import torch
from torch import Tensor, nn

from model.codecs.turbo import TurboConfig, TurboDecoder
from model.compiling import compile_layers
from model.config import TransformerConfig
from model.fp8 import DTYPE, quantise_into
from model.fp8_layers import prepare_fp8
from model.transformer import Transformer

SPREAD = 0.02  # of weights; a norm's stored weight is zero-centred, so this suits it too


def random_weights(config: TransformerConfig, *, fp8: bool, device: str) -> dict[str, Tensor]:
    """The same numbers with `fp8` and without, but for rounding: each tensor has a seed of its own."""
    with torch.device("meta"):
        plain = Transformer(config).state_dict()
        model = Transformer(config)
    if fp8:
        prepare_fp8(model)
    wanted, state = model.state_dict(), dict[str, Tensor]()
    for seed, (name, like) in enumerate(plain.items()):
        generator = torch.Generator(device).manual_seed(seed)
        tensor = torch.empty(like.shape, dtype=like.dtype, device=device).normal_(std=SPREAD, generator=generator)
        if wanted[name].dtype == DTYPE:
            state[name], state[name.removesuffix("weight") + "scales"] = quantise_into(tensor, like=wanted[name])
        else:
            state[name] = tensor
    count = config.head_dim // 8
    state["adapter.rope.bands"] = 10000.0 ** -(torch.arange(count, dtype=torch.float32, device=device) / count)
    return state


def transformer(
    config: TransformerConfig, weights: dict[str, Tensor], *, fp8: bool, compiler: str | None
) -> Transformer:
    """Around weights that are there already: stages of one shape share them. `compiler` None: eager."""
    with torch.device("meta"):
        model = Transformer(config)
    if fp8:
        prepare_fp8(model)
    model.load_state_dict(weights, strict=True, assign=True)
    model.eval().requires_grad_(False)
    if compiler is not None:
        compile_layers(model, backend=compiler)
    return model


def random_decoder(config: TurboConfig, *, device: str) -> TurboDecoder:
    with torch.device("meta"):
        decoder = TurboDecoder(config).bfloat16()
    decoder = decoder.to_empty(device=device).eval().requires_grad_(False)
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return decoder
