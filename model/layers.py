"""One Transformer layer and its parts: who goes through which weights. No loading, device choice or parallelism here.

S tokens in the order video, audio, text; C hidden channels; Hq query heads and Hkv key/value heads of D channels;
E experts: one set of weights for each modality (3), or one shared by all (1).
Letters are logical: under tensor parallelism a rank's tensors hold its share of Hq, Hkv and the MLP's inner width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.attention import full_attention, local_attention
from model.config import TransformerConfig
from model.fp8 import Fp8Weight
from model.pieces import EAGER, Weight, rms_norm

SLICE_TOKENS = 8192  # through an MLP at once


@dataclass(frozen=True)
class Sequence:
    """What every layer must know about the tokens it is given.

    Several passes may share a forward (the two of a guided step): modality by modality, their tokens side by side.
    They meet in no attention.
    """

    passes: tuple[tuple[int, int, int], ...]  # of each pass, tokens of video, audio, text
    rotary: tuple[Tensor, Tensor]  # sin, cos: [1, S, 3B]
    num_frames: int  # latent frames of the video

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Tokens of video, audio, text in all."""
        video, audio, text = (sum(sizes) for sizes in zip(*self.passes, strict=True))
        return video, audio, text

    @property
    def tokens_per_frame(self) -> int:
        return self.passes[0][0] // self.num_frames

    def split(self, x: Tensor) -> list[Tensor]:
        """[..., S, D] -> the tokens of each pass, in the order video, audio, text."""
        if len(self.passes) == 1:
            return [x]
        parts = x.split([size for sizes in zip(*self.passes, strict=True) for size in sizes], dim=-2)
        count = len(self.passes)
        return [torch.cat(parts[n::count], dim=-2) for n in range(count)]

    def join(self, streams: list[Tensor]) -> Tensor:
        """The way back."""
        return side_by_side(streams, self.passes)


def side_by_side(streams: list[Tensor], passes: tuple[tuple[int, int, int], ...]) -> Tensor:
    """Each pass's tokens [..., S, D] as one tensor: all video, then all audio, then all text."""
    if len(streams) == 1:
        return streams[0]
    parts = [x.split(sizes, dim=-2) for x, sizes in zip(streams, passes, strict=True)]
    return torch.cat([part[modality] for modality in range(3) for part in parts], dim=-2)


class ExpertNorm(nn.Module):
    """An RMS norm's weights, E experts end to end."""

    def __init__(self, size: int, *, num_experts: int = 1) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.weight = nn.Parameter(torch.empty(num_experts * size, dtype=torch.float32))

    def of(self, expert: int) -> Tensor:
        return _share(self.weight, expert, self.num_experts)

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> float32 of the same shape, where there is one expert."""
        return rms_norm(x, self.weight)


class ExpertLinear(nn.Module):
    """A linear map without bias whose weight stacks E experts on dim 0; in 8 bits where it has scales."""

    scales: Tensor | None

    def __init__(self, in_features: int, out_features: int, *, num_experts: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.weight = nn.Parameter(torch.empty(num_experts * out_features, in_features, dtype=dtype))
        self.register_buffer("scales", None)
        self.rows = 0  # that count, where there are scales

    def of(self, expert: int) -> Weight:
        if self.scales is not None:
            return Fp8Weight(self.weight, self.scales, self.rows)
        return _share(self.weight, expert, self.num_experts)


def _share(weight: Tensor, expert: int, num_experts: int) -> Tensor:
    """Always a view: torch would compile anew for a parameter itself."""
    return weight.view_as(weight) if num_experts == 1 else weight.chunk(num_experts)[expert]


def by_expert(num_experts: int, sizes: tuple[int, int, int], *tensors: Tensor) -> Iterator[tuple[int, list[Tensor]]]:
    """Each expert and what it works on of tensors [n, S, ...]: all tokens, or those of its modality."""
    if num_experts == 1:
        yield 0, list(tensors)
        return
    shares = zip(*(x.split(sizes, dim=1) for x in tensors), strict=True)
    yield from ((expert, list(share)) for expert, share in enumerate(shares))


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class Attention(nn.Module):
    def __init__(self, config: TransformerConfig, *, layer: int, dtype: torch.dtype) -> None:
        super().__init__()
        experts = config.num_experts(layer)
        self.num_experts = experts
        self.head_dim = config.head_dim
        self.group_size = config.num_heads_q // config.num_heads_kv  # query heads a key/value head
        self.radius = config.frame_receptive_field if layer in config.local_attn_layers else None
        self.pieces = EAGER
        width = config.num_heads_q * config.head_dim
        rows = width + 2 * config.num_heads_kv * config.head_dim + config.num_heads_q
        self.pre_norm = ExpertNorm(config.hidden_size, num_experts=experts)
        self.linear_qkv = ExpertLinear(config.hidden_size, rows, num_experts=experts, dtype=dtype)
        self.q_norm = ExpertNorm(config.head_dim, num_experts=experts)
        self.k_norm = ExpertNorm(config.head_dim, num_experts=experts)
        self.linear_proj = ExpertLinear(width, config.hidden_size, num_experts=experts, dtype=dtype)

    def forward(self, x: Tensor, sequence: Sequence) -> Tensor:
        """[n, S, C] float32 -> what is added to it."""
        q, k, v, gate = (_joined(list(parts)) for parts in zip(*self._project(x, sequence), strict=True))
        out = self._attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), sequence).transpose(1, 2)
        parts = by_expert(self.num_experts, sequence.sizes, out, gate)
        return _joined([self.pieces.attended(*part, self.linear_proj.of(expert)) for expert, part in parts])

    def _project(self, x: Tensor, sequence: Sequence) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        for expert, part in by_expert(self.num_experts, sequence.sizes, x, *sequence.rotary):
            norms = (each.of(expert) for each in (self.q_norm, self.k_norm))
            weights = (self.pre_norm.of(expert), self.linear_qkv.of(expert), *norms)
            yield self.pieces.project(*part, *weights, self.head_dim, self.group_size)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, sequence: Sequence) -> Tensor:
        passes = zip(sequence.split(q), sequence.split(k), sequence.split(v), strict=True)
        return sequence.join([self._attend_alone(*each, sequence) for each in passes])

    def _attend_alone(self, q: Tensor, k: Tensor, v: Tensor, sequence: Sequence) -> Tensor:
        if self.radius is None:
            return full_attention(q, k, v)
        return local_attention(
            q, k, v, num_frames=sequence.num_frames, tokens_per_frame=sequence.tokens_per_frame, radius=self.radius
        )


class Mlp(nn.Module):
    """Gated, or plain in the first layers."""

    def __init__(self, config: TransformerConfig, *, layer: int, dtype: torch.dtype) -> None:
        super().__init__()
        experts, inner = config.num_experts(layer), config.mlp_inner_size(layer)
        self.num_experts = experts
        self.gated = config.is_gated(layer)
        self.pieces = EAGER
        self.pre_norm = ExpertNorm(config.hidden_size, num_experts=experts)
        rows = 2 * inner if self.gated else inner
        self.up_gate_proj = ExpertLinear(config.hidden_size, rows, num_experts=experts, dtype=dtype)
        self.down_proj = ExpertLinear(inner, config.hidden_size, num_experts=experts, dtype=dtype)

    def forward(self, x: Tensor, sequence: Sequence) -> Tensor:
        """[n, S, C] float32 -> what is added to it; long sequences slice by slice, for the inner values are wide."""
        parts = []
        for expert, (tokens,) in by_expert(self.num_experts, sequence.sizes, x):
            weights = [each.of(expert) for each in (self.pre_norm, self.up_gate_proj, self.down_proj)]
            parts += [self.pieces.mlp(few, *weights, self.gated) for few in tokens.split(SLICE_TOKENS, dim=1)]
        return _joined(parts)


class Layer(nn.Module):
    def __init__(self, config: TransformerConfig, *, layer: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.attention = Attention(config, layer=layer, dtype=dtype)
        self.mlp = Mlp(config, layer=layer, dtype=dtype)

    def forward(self, x: Tensor, sequence: Sequence) -> Tensor:
        x = x + self.attention(x, sequence)
        out: Tensor = x + self.mlp(x, sequence)
        return out
