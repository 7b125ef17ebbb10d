"""Tensor parallelism: a table of what is cut how, and two collectives a layer. The Transformer knows nothing of it.

| tensor         | cut along | inside each expert                                             |
|----------------|-----------|----------------------------------------------------------------|
| linear_qkv     | rows      | q heads, k heads, v heads and gates, each part on its own      |
| linear_proj    | columns   | q heads                                                        |
| up_gate_proj   | rows      | inner channels (gated: pairs of rows), in units of 16, padded  |
| down_proj      | columns   | inner channels, the same                                       |
| all others     |           | whole on every rank                                            |

Padding is exact: a zero row gives a zero gate, which gives zero. What attention and MLP add to the stream is summed in
float32. Takes a process group, and another one later where ranks were lost; reads no environment.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.config import TransformerConfig
from model.transformer import Transformer

TP_SIZES = (1, 2, 4, 8)
INNER_UNIT = 16  # inner channels are cut in multiples of this (FP8 kernels want it)


@dataclass(frozen=True)
class Piece:
    """Rows or columns start..stop of the file's tensor, followed by `pad` zero ones."""

    start: int
    stop: int
    pad: int = 0


@dataclass(frozen=True)
class Cut:
    """One rank's share of a tensor: pieces along `dim`, laid end to end."""

    dim: int
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        return sum(piece.stop - piece.start + piece.pad for piece in self.pieces)


def allowed_tp_sizes(config: TransformerConfig) -> tuple[int, ...]:
    """Sizes that divide the key/value heads (and so the query heads)."""
    return tuple(size for size in TP_SIZES if config.num_heads_kv % size == 0)


def check_tp_size(config: TransformerConfig, tp: int) -> None:
    """Raises ValueError naming the sizes that work."""
    if tp not in allowed_tp_sizes(config):
        works = ", ".join(map(str, allowed_tp_sizes(config)))
        raise ValueError(
            f"tensor parallel size {tp} does not divide {config.num_heads_kv} key/value heads; sizes that work: {works}"
        )


def cut_of(name: str, config: TransformerConfig, *, tp: int, rank: int) -> Cut | None:
    """The share of tensor `name` (a released name) that `rank` of `tp` holds; None: all of it."""
    parts = name.split(".")
    if parts[0] != "block" or parts[-2] not in ("linear_qkv", "linear_proj", "up_gate_proj", "down_proj"):
        return None
    layer, kind = int(parts[2]), parts[-2]
    if kind == "linear_proj":
        return Cut(1, (_heads(0, config.num_heads_q, config.head_dim, tp=tp, rank=rank),))
    if kind == "down_proj":
        return Cut(1, (_inner(0, config.mlp_inner_size(layer), 1, tp=tp, rank=rank),))
    experts = range(config.num_experts(layer))
    if kind == "linear_qkv":
        return Cut(0, tuple(piece for e in experts for piece in _qkv_rows(e, config, tp=tp, rank=rank)))
    inner, width = config.mlp_inner_size(layer), 2 if config.is_gated(layer) else 1
    return Cut(0, tuple(_inner(e * inner * width, inner, width, tp=tp, rank=rank) for e in experts))


def _heads(offset: int, num_heads: int, width: int, *, tp: int, rank: int) -> Piece:
    share = num_heads // tp
    return Piece(offset + rank * share * width, offset + (rank + 1) * share * width)


def _qkv_rows(expert: int, config: TransformerConfig, *, tp: int, rank: int) -> Iterator[Piece]:
    parts = (
        (config.num_heads_q, config.head_dim),
        (config.num_heads_kv, config.head_dim),
        (config.num_heads_kv, config.head_dim),
        (config.num_heads_q, 1),
    )
    offset = expert * sum(count * width for count, width in parts)
    for count, width in parts:
        yield _heads(offset, count, width, tp=tp, rank=rank)
        offset += count * width


def local_inner_size(inner: int, tp: int) -> int:
    """Inner channels a rank holds, the same on all ranks: whole on one rank, else padded to units of 16."""
    if tp == 1:
        return inner
    units = -(-inner // INNER_UNIT)
    return -(-units // tp) * INNER_UNIT


def _inner(offset: int, inner: int, width: int, *, tp: int, rank: int) -> Piece:
    share = local_inner_size(inner, tp)
    start, stop = min(rank * share, inner), min((rank + 1) * share, inner)
    return Piece(offset + start * width, offset + stop * width, pad=(share - (stop - start)) * width)


class GroupBroken(RuntimeError):
    """The ranks cannot reach each other any more. The weights are as they were."""


class GroupSum:
    """Makes the ranks agree. Its group may be replaced while the weights stay; None lets go of the one it had."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self.group = group
        self.is_silent = False  # a rank that tries its own layers out alone sums nothing

    def __call__(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Raises GroupBroken, which holds on to nothing that keeps the other ranks waiting."""
        total = output.float()
        if self.is_silent:
            return total
        try:
            dist.all_reduce(total, group=self.group)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
        else:
            return total
        raise GroupBroken(reason)


def shard(model: Transformer, *, tp: int, rank: int, group: dist.ProcessGroup | None) -> GroupSum:
    """Give a model built on the meta device the shapes of one rank, and the sums that make the ranks agree."""
    check_tp_size(model.config, tp)
    total = GroupSum(group)
    if tp == 1:
        return total
    for name, parameter in list(model.named_parameters()):
        cut = cut_of(name, model.config, tp=tp, rank=rank)
        if cut is not None:
            shape = list(parameter.shape)
            shape[cut.dim] = cut.size
            owner, _, leaf = name.rpartition(".")
            local = torch.empty(shape, dtype=parameter.dtype, device="meta")
            setattr(model.get_submodule(owner), leaf, nn.Parameter(local))
    for name, module in model.named_modules():
        if name.endswith((".attention", ".mlp")):
            module.register_forward_hook(total)
    return total
