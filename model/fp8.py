"""Linear maps in 8-bit floats (e4m3): weights with a scale a row, made when they are loaded; tokens with one each.

Products are torch's scaled matmul, which sums in float32 and gives bfloat16. Only layers whose weights all modalities
share are quantised: the first and the last few feel it most.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

UNIT = 16  # the matmul wants both sides of a weight in multiples of this
DTYPE = torch.float8_e4m3fn
LARGEST = torch.finfo(DTYPE).max
CAPABILITY = (8, 9)  # of the first cards that multiply these


class Fp8Weight(NamedTuple):
    """A linear map [out, in]; rows and columns that only fill up to UNIT are zero."""

    values: Tensor  # [out, in], e4m3
    scales: Tensor  # [out, 1], float32
    rows: int  # of `out`, those that count


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """[n, in] -> e4m3 values of the same shape and the scale [n, 1] of each row."""
    x = x.float()
    scales = x.abs().amax(-1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (x / scales).to(DTYPE), scales


def padded(size: int) -> int:
    return -(-size // UNIT) * UNIT


def quantise_into(share: Tensor, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """A weight as it was read -> values of the shape of `like`, and scales: zeros fill it up."""
    rows, columns = (want - have for want, have in zip(like.shape, share.shape, strict=True))
    return quantise(functional.pad(share, (0, columns, 0, rows)))


def check_device(device: str) -> None:
    """Raises ValueError for a card that cannot multiply them. CPUs can, slowly."""
    if device.startswith("cuda") and torch.cuda.get_device_capability(device) < CAPABILITY:
        raise ValueError(f"fp8: {torch.cuda.get_device_name(device)} cannot multiply 8-bit floats")


def scaled_linear(x: Tensor, weight: Fp8Weight) -> Tensor:
    """[..., in] -> [..., rows] in bfloat16. Columns beyond `in` must be zero in the weight, and are added to x."""
    values, scales = quantise(x.flatten(0, -2))
    out = torch._scaled_mm(
        values,
        weight.values.t(),
        scale_a=scales,
        scale_b=weight.scales.t(),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
    counted: Tensor = out[:, : weight.rows].unflatten(0, x.shape[:-1])
    return counted
