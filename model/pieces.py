"""What a layer computes between its sums over ranks and its attention, as functions of tokens and one expert's weights.

n batch, S tokens of one modality (or all, where modalities share weights), C hidden channels; Hq query heads and Hkv
key/value heads of D channels. Under tensor parallelism weights and results are a rank's share.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from model.fp8 import Fp8Weight, scaled_linear
from model.positions import rotate

NORM_EPS = 1e-6
ACTIVATION_LIMIT = 7.0
ACTIVATION_SLOPE = 1.702
Weight: TypeAlias = Tensor | Fp8Weight


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """Over the last dim in float32, times (1 + weight): the stored weight is zero-centred."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS) * (1 + weight)


def linear(x: Tensor, weight: Weight) -> Tensor:
    """[..., in] of any float dtype -> [..., out] in the dtype of the block's linear maps. There are no biases."""
    if isinstance(weight, Fp8Weight):
        return scaled_linear(x, weight)
    return functional.linear(x.to(weight.dtype), weight)


def project(
    x: Tensor,
    sin: Tensor,
    cos: Tensor,
    pre_norm: Tensor,
    qkv: Weight,
    q_norm: Tensor,
    k_norm: Tensor,
    head_dim: int,
    group_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Stream [n, S, C] -> q [n, S, Hq, D], k and v [n, S, Hkv, D] in the map's dtype, gates [n, S, Hq] float32."""
    fused = linear(rms_norm(x, pre_norm), qkv)
    dtype = fused.dtype
    fused = fused.float()
    num_kv = fused.shape[-1] // (group_size * (head_dim + 1) + 2 * head_dim)
    num_q = num_kv * group_size
    widths = [num_q * head_dim, num_kv * head_dim, num_kv * head_dim, num_q]
    q, k, v, gate = fused.split(widths, dim=-1)
    q, k, v = (part.unflatten(-1, (-1, head_dim)) for part in (q, k, v))
    q = rotate(rms_norm(q, q_norm), (sin, cos))
    k = rotate(rms_norm(k, k_norm), (sin, cos))
    return q.to(dtype), k.to(dtype), v.to(dtype), gate


def attended(out: Tensor, gate: Tensor, proj: Weight) -> Tensor:
    """What attention gave [n, S, Hq, D] and its gates [n, S, Hq] -> what is added to the stream, float32."""
    gated = out.float() * gate.sigmoid()[..., None]
    return linear(gated.flatten(-2).to(out.dtype), proj).float()


def mlp(x: Tensor, pre_norm: Tensor, up: Weight, down: Weight, gated: bool) -> Tensor:
    """Stream [n, S, C] -> what is added to it, float32. Gated (SwiGLU-like, clamped) or plain (GELU-like, clamped).

    Even rows of `up` are the gated half.
    """
    inner = linear(rms_norm(x, pre_norm), up)
    gate = inner[..., 0::2] if gated else inner
    gate = gate.clamp(max=ACTIVATION_LIMIT).float().mul_(ACTIVATION_SLOPE)  # the limit is exact in bfloat16
    active = functional.silu(gate).div_(ACTIVATION_SLOPE)
    if gated:
        active = active * inner[..., 1::2].clamp(-ACTIVATION_LIMIT, ACTIVATION_LIMIT).float().add_(1)
    return linear(active, down).float()


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """How a layer's pieces are run: as they stand here, or compiled."""

    project: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] = project
    attended: Callable[..., Tensor] = attended
    mlp: Callable[..., Tensor] = mlp


EAGER = Pieces()
