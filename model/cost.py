"""What a Transformer holds and what a forward through it costs, from its config alone: no tensor is made here.

A multiplication and its addition are 2 FLOPs; norms, rotary, softmax and activations are not counted (below 1 %).
Padding under tensor parallelism is counted in parameters, not in FLOPs.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from model.config import MODALITIES, ModelConfig, TransformerConfig
from model.parallel import cut_of
from model.shapes import ClipShape

BLOCK_LINEAR = ("linear_qkv", "linear_proj", "up_gate_proj", "down_proj")
DTYPE_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What one rank holds. Block linears have the model's dtype or 8 bits and scales, everything else is float32."""

    block_linears: int
    others: int
    num_bytes: int
    largest_bytes: int  # of one layer
    pinned_bytes: int = 0  # what torch pins for them: each tensor's bytes up to the next power of two

    @property
    def count(self) -> int:
        return self.block_linears + self.others


def parameters(config: TransformerConfig, *, dtype: str, tp: int = 1, rank: int = 0, fp8: bool = False) -> Parameters:
    """Exact, with the zero rows that uneven cuts are padded with. `dtype` of the block linears.

    `fp8`: those that modalities share in 8 bits, with a scale a row; rows that fill these up are not counted (0.1 %).
    """
    counts: Counter[bool] = Counter()
    num_bytes: Counter[str] = Counter()  # of layers, and of all that is in none
    pinned_bytes = 0
    for name, shape in tensor_shapes(config):
        local = list(shape)
        cut = cut_of(name, config, tp=tp, rank=rank) if tp > 1 else None
        if cut is not None:
            local[cut.dim] = cut.size
        is_linear, count = _is_block_linear(name), math.prod(local)
        counts[is_linear] += count
        if fp8 and is_linear and config.num_experts(int(name.split(".")[2])) == 1:
            size = count + DTYPE_BYTES["float32"] * local[0]
        else:
            size = count * DTYPE_BYTES[dtype if is_linear else "float32"]
        num_bytes[name.split(".")[2] if name.startswith("block.") else ""] += size
        pinned_bytes += 1 << (size - 1).bit_length()
    return Parameters(
        block_linears=counts[True],
        others=counts[False],
        num_bytes=num_bytes.total(),
        largest_bytes=max(num_bytes.values()),
        pinned_bytes=pinned_bytes,
    )


def tensor_shapes(config: TransformerConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and whole shape of every parameter, by the names of the released checkpoints."""
    hidden = config.hidden_size
    channels = dict(zip(MODALITIES, _in_channels(config), strict=True))
    for modality, width in channels.items():
        yield f"adapter.{modality}_embedder.weight", (hidden, width)
        yield f"adapter.{modality}_embedder.bias", (hidden,)
    if config.place_frequencies:
        yield "adapter.place_embedder.weight", (hidden, 8 * config.place_frequencies)
    for layer in range(config.num_layers):
        experts = config.num_experts(layer)
        prefix = f"block.layers.{layer}."
        for norm in ("attention.pre_norm", "mlp.pre_norm"):
            yield f"{prefix}{norm}.weight", (experts * hidden,)
        for norm in ("attention.q_norm", "attention.k_norm"):
            yield f"{prefix}{norm}.weight", (experts * config.head_dim,)
        for name, rows, columns in _linears(config, layer):
            yield f"{prefix}{name}.weight", (experts * rows, columns)
    for modality in ("video", "audio"):
        yield f"final_norm_{modality}.weight", (hidden,)
        yield f"final_linear_{modality}.weight", (channels[modality], hidden)


def active_parameters(config: TransformerConfig) -> int:
    """Weights that act on a token: those of one expert a layer."""
    return sum(rows * columns for layer in range(config.num_layers) for _, rows, columns in _linears(config, layer))


def _linears(config: TransformerConfig, layer: int) -> Iterator[tuple[str, int, int]]:
    """Rows and columns of one expert."""
    hidden, width = config.hidden_size, config.num_heads_q * config.head_dim
    inner = config.mlp_inner_size(layer)
    yield "attention.linear_qkv", width + 2 * config.num_heads_kv * config.head_dim + config.num_heads_q, hidden
    yield "attention.linear_proj", hidden, width
    yield "mlp.up_gate_proj", 2 * inner if config.is_gated(layer) else inner, hidden
    yield "mlp.down_proj", hidden, inner


def _in_channels(config: TransformerConfig) -> tuple[int, int, int]:
    return config.video_in_channels, config.audio_in_channels, config.text_in_channels


def _is_block_linear(name: str) -> bool:
    return name.startswith("block.") and name.split(".")[-2] in BLOCK_LINEAR


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A forward's sequence."""

    frames: int  # latent frames of the video
    per_frame: int
    audio: int
    text: int

    @property
    def video(self) -> int:
        return self.frames * self.per_frame

    @property
    def total(self) -> int:
        return self.video + self.audio + self.text


@dataclass(frozen=True, kw_only=True)
class ForwardFlops:
    """Of one forward. Experts do not multiply a token's FLOPs."""

    video: int  # the blocks' linear maps, by modality
    audio: int
    text: int
    attention: int
    embedders: int
    heads: int

    @property
    def total(self) -> int:
        return self.video + self.audio + self.text + self.attention + self.embedders + self.heads


def forward_flops(config: TransformerConfig, tokens: Tokens) -> ForwardFlops:
    per_token = 2 * active_parameters(config)
    num_local = len(config.local_attn_layers)
    pairs = (config.num_layers - num_local) * tokens.total**2
    pairs += num_local * _local_pairs(tokens, radius=config.frame_receptive_field) if num_local else 0
    counts = (tokens.video, tokens.audio, tokens.text)
    widths = _in_channels(config)
    placed = (tokens.video + tokens.audio) * 8 * config.place_frequencies
    return ForwardFlops(
        video=per_token * tokens.video,
        audio=per_token * tokens.audio,
        text=per_token * tokens.text,
        attention=4 * config.num_heads_q * config.head_dim * pairs,
        embedders=2 * config.hidden_size * (sum(n * width for n, width in zip(counts, widths, strict=True)) + placed),
        heads=2 * config.hidden_size * (tokens.video * widths[0] + tokens.audio * widths[1]),
    )


def _local_pairs(tokens: Tokens, *, radius: int) -> int:
    """Query-key pairs where video sees `radius` latent frames to each side, audio and text; those see everything."""
    windows = sum(min(tokens.frames, frame + radius + 1) - max(0, frame - radius) for frame in range(tokens.frames))
    others = tokens.audio + tokens.text
    return windows * tokens.per_frame**2 + tokens.video * others + others * tokens.total


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """One stage of one clip."""

    part: str  # its folder below the weights root
    tokens: int  # of one forward
    forwards: int
    flops: int


def stage_costs(
    model: ModelConfig, shape: ClipShape, *, steps: int, text_tokens: int, negative_tokens: int
) -> tuple[StageCost, ...]:
    """What the Transformers do for a clip: `steps` of the first stage, then super-resolution where the shape has it."""
    (first, config), *later = model.transformers.items()
    told = [text_tokens, negative_tokens] if model.first_stage == "base" else [text_tokens]
    costs = [_stage_cost(first, config, shape.first_latent or shape.video_latent, shape, steps=steps, texts=told)]
    if shape.first_latent is not None and model.super_resolution is not None:
        sampling = model.super_resolution.sampling
        told = [text_tokens, negative_tokens] if sampling.guided else [text_tokens]
        part, config = later[0]
        costs.append(_stage_cost(part, config, shape.video_latent, shape, steps=sampling.steps, texts=told))
    return tuple(costs)


def _stage_cost(
    part: str,
    config: TransformerConfig,
    latent: tuple[int, int, int, int],
    shape: ClipShape,
    *,
    steps: int,
    texts: list[int],
) -> StageCost:
    passes = [
        Tokens(frames=latent[1], per_frame=(latent[2] // 2) * (latent[3] // 2), audio=shape.audio_latent[0], text=text)
        for text in texts
    ]
    return StageCost(
        part=part,
        tokens=passes[0].total,
        forwards=steps * len(passes),
        flops=steps * sum(forward_flops(config, tokens).total for tokens in passes),
    )
