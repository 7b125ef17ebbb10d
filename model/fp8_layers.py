"""Which linear maps of a Transformer are kept in 8 bits, before weights are loaded into it."""

import torch
from torch import nn

from model.fp8 import DTYPE, UNIT, padded
from model.layers import ExpertLinear, Layer
from model.transformer import Transformer


def prepare_fp8(model: Transformer) -> None:
    """Give a model on the meta device, cut already, the shapes of 8-bit weights; loading it quantises each.

    A rank quantises its own share: a scale is that of the columns it holds. ValueError where a width cannot be cut so.
    """
    for layer in model.block.layers:
        assert isinstance(layer, Layer)
        if layer.mlp.num_experts == 1:
            _prepare(layer)


def _prepare(layer: Layer) -> None:
    attention, mlp = layer.attention, layer.mlp
    inner = padded(mlp.down_proj.weight.shape[1])
    _shape(attention.linear_qkv, rows=attention.linear_qkv.weight.shape[0])
    _shape(attention.linear_proj, rows=attention.linear_proj.weight.shape[0])
    _shape(mlp.up_gate_proj, rows=inner * (2 if mlp.gated else 1))  # zero rows give zeros, which down multiplies
    _shape(mlp.down_proj, rows=mlp.down_proj.weight.shape[0], columns=inner)


def _shape(linear: ExpertLinear, *, rows: int, columns: int | None = None) -> None:
    columns = columns or linear.weight.shape[1]
    if columns % UNIT:
        raise ValueError(f"fp8 needs linear maps with inputs in multiples of {UNIT} a rank, not of {columns}")
    linear.rows = rows
    linear.weight = nn.Parameter(torch.empty(padded(rows), columns, dtype=DTYPE, device="meta"), requires_grad=False)
    linear.scales = torch.empty(padded(rows), 1, dtype=torch.float32, device="meta")
