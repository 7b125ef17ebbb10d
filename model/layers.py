"""One Transformer layer and its parts. No loading, device choice or parallelism here.

S tokens in the order video, audio, text; C hidden channels; Hq query heads and Hkv key/value heads of D channels;
E experts: one set of weights for each modality (3), or one shared by all (1).
Letters are logical: under tensor parallelism a rank's tensors hold its share of Hq, Hkv and the MLP's inner width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.attention import full_attention, local_attention
from model.config import TransformerConfig
from model.positions import rotate

NORM_EPS = 1e-6
ACTIVATION_LIMIT = 7.0
ACTIVATION_SLOPE = 1.702
SLICE_TOKENS = 8192  # through an MLP at once


@dataclass(frozen=True)
class Sequence:
    """What every layer must know about the tokens it is given.

    Several passes may share a forward (the two of a guided step): modality by modality, their tokens side by side.
    They meet in no attention.
    """

    passes: tuple[tuple[int, int, int], ...]  # of each pass, tokens of video, audio, text
    rotary: tuple[Tensor, Tensor]  # sin, cos: [S, 3B]
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
    """RMS norm over the last dim in float32, times (1 + weight): the stored weight is zero-centred."""

    def __init__(self, size: int, *, num_experts: int = 1, per_head: bool = False) -> None:
        super().__init__()
        self.size = size
        self.per_head = per_head
        self.weight = nn.Parameter(torch.empty(num_experts * size, dtype=torch.float32))

    def forward(self, x: Tensor, sizes: tuple[int, int, int]) -> Tensor:
        """x [..., S, size], or [..., S, heads, size] if per_head, any float dtype -> float32 of the same shape."""
        weight = self.weight.view(-1, self.size)
        if weight.shape[0] > 1:  # one row a token
            weight = torch.cat([w.expand(n, -1) for w, n in zip(weight, sizes, strict=True)])
            weight = weight[:, None] if self.per_head else weight
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS) * (1 + weight)


class ExpertLinear(nn.Module):
    """A linear map without bias whose weight stacks E experts on dim 0; each modality goes through its own."""

    def __init__(self, in_features: int, out_features: int, *, num_experts: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.weight = nn.Parameter(torch.empty(num_experts * out_features, in_features, dtype=dtype))

    def forward(self, x: Tensor, sizes: tuple[int, int, int]) -> Tensor:
        """[..., S, in] -> [..., S, out] in the weight's dtype."""
        x = x.to(self.weight.dtype)
        if self.num_experts == 1:
            return functional.linear(x, self.weight)
        parts = zip(x.split(sizes, dim=-2), self.weight.chunk(self.num_experts), strict=True)
        # Flat: a slice of a batch would be multiplied as a batch, with a copy of the weight.
        outs = (
            functional.linear(tokens.flatten(0, -2), weight).unflatten(0, tokens.shape[:-1]) for tokens, weight in parts
        )
        return torch.cat(list(outs), dim=-2)


class Attention(nn.Module):
    def __init__(self, config: TransformerConfig, *, layer: int, dtype: torch.dtype) -> None:
        super().__init__()
        experts = config.num_experts(layer)
        self.head_dim = config.head_dim
        self.group_size = config.num_heads_q // config.num_heads_kv  # query heads a key/value head
        self.radius = config.frame_receptive_field if layer in config.local_attn_layers else None
        width = config.num_heads_q * config.head_dim
        rows = width + 2 * config.num_heads_kv * config.head_dim + config.num_heads_q
        self.pre_norm = ExpertNorm(config.hidden_size, num_experts=experts)
        self.linear_qkv = ExpertLinear(config.hidden_size, rows, num_experts=experts, dtype=dtype)
        self.q_norm = ExpertNorm(config.head_dim, num_experts=experts, per_head=True)
        self.k_norm = ExpertNorm(config.head_dim, num_experts=experts, per_head=True)
        self.linear_proj = ExpertLinear(width, config.hidden_size, num_experts=experts, dtype=dtype)

    def forward(self, x: Tensor, sequence: Sequence) -> Tensor:
        """[..., S, C] float32 -> what is added to it."""
        dtype = self.linear_proj.weight.dtype
        fused = self.linear_qkv(self.pre_norm(x, sequence.sizes), sequence.sizes).float()
        num_kv = fused.shape[-1] // (self.group_size * (self.head_dim + 1) + 2 * self.head_dim)
        num_q = num_kv * self.group_size
        widths = [num_q * self.head_dim, num_kv * self.head_dim, num_kv * self.head_dim, num_q]
        q, k, v, gate = fused.split(widths, dim=-1)
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)) for part in (q, k, v))
        q = rotate(self.q_norm(q, sequence.sizes), sequence.rotary)
        k = rotate(self.k_norm(k, sequence.sizes), sequence.rotary)
        q, k, v = (part.to(dtype).transpose(-2, -3) for part in (q, k, v))
        out = self._attend(q, k, v, sequence)
        gated = out.transpose(-2, -3).float() * gate.sigmoid()[..., None]
        return _as_float(self.linear_proj(gated.flatten(-2).to(dtype), sequence.sizes))

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
    """Gated (SwiGLU-like, clamped) or plain (GELU-like, clamped); even rows of up_gate_proj are the gated half."""

    def __init__(self, config: TransformerConfig, *, layer: int, dtype: torch.dtype) -> None:
        super().__init__()
        experts, inner = config.num_experts(layer), config.mlp_inner_size(layer)
        self.gated = config.is_gated(layer)
        self.pre_norm = ExpertNorm(config.hidden_size, num_experts=experts)
        rows = 2 * inner if self.gated else inner
        self.up_gate_proj = ExpertLinear(config.hidden_size, rows, num_experts=experts, dtype=dtype)
        self.down_proj = ExpertLinear(inner, config.hidden_size, num_experts=experts, dtype=dtype)

    def forward(self, x: Tensor, sequence: Sequence) -> Tensor:
        """[..., S, C] float32 -> what is added to it; long sequences slice by slice, for the inner values are wide."""
        if x.shape[-2] <= SLICE_TOKENS:
            return self._of_slice(x, sequence.sizes)
        parts, first = [], 0
        for tokens in x.split(SLICE_TOKENS, dim=-2):
            parts.append(self._of_slice(tokens, _sizes_within(sequence.sizes, first, first + tokens.shape[-2])))
            first += tokens.shape[-2]
        return torch.cat(parts, dim=-2)

    def _of_slice(self, x: Tensor, sizes: tuple[int, int, int]) -> Tensor:
        up = self.up_gate_proj(self.pre_norm(x, sizes), sizes)
        gate = up[..., 0::2] if self.gated else up
        gate = gate.clamp(max=ACTIVATION_LIMIT).float().mul_(ACTIVATION_SLOPE)  # the limit is exact in bfloat16
        inner = functional.silu(gate).div_(ACTIVATION_SLOPE)
        if self.gated:
            inner = inner * up[..., 1::2].clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT).float().add_(1)
        return _as_float(self.down_proj(inner, sizes))


def _sizes_within(sizes: tuple[int, int, int], start: int, stop: int) -> tuple[int, int, int]:
    """Tokens of video, audio and text among those from `start` to `stop` of the whole sequence."""
    ends = (sizes[0], sizes[0] + sizes[1], sum(sizes))
    video, audio, text = (
        max(min(stop, end) - max(start, end - size), 0) for end, size in zip(ends, sizes, strict=True)
    )
    return video, audio, text


class Layer(nn.Module):
    def __init__(self, config: TransformerConfig, *, layer: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.attention = Attention(config, layer=layer, dtype=dtype)
        self.mlp = Mlp(config, layer=layer, dtype=dtype)

    def forward(self, x: Tensor, sequence: Sequence) -> Tensor:
        x = x + _as_float(self.attention(x, sequence))
        return x + _as_float(self.mlp(x, sequence))


def _as_float(x: Tensor) -> Tensor:
    """The residual stream stays float32."""
    return x.float()
