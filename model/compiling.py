"""A layer's pieces through `torch.compile`: each once for all layers that are alike, and for any number of tokens.

What lies between them stays as it is: attention has kernels of its own, and sums over ranks meet no graph. Another
number of tokens compiles nothing; more kinds of layers than torch keeps (8) is an error, never an eager layer.
Compiled kernels differ from eager ones within rounding, so compiling is a setting and part of a clip's settings.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from model import pieces
from model.layers import Layer
from model.pieces import Pieces
from model.transformer import Transformer

FEWEST_TOKENS = 2  # torch compiles anew for a dimension of 1, so a single token takes the eager way


class Compiled:
    """One piece. Its first `num_streams` arguments are tokens [1, S, ...], all others weights and numbers."""

    def __init__(self, piece: Callable[..., Any], *, num_streams: int, backend: str) -> None:
        self.eager, self.num_streams = piece, num_streams
        # Deterministic: no choice by stopwatch, which might sum in another order on the next start.
        options: dict[str, Any] | None = {"deterministic": True} if backend == "inductor" else None
        self.compiled = torch.compile(piece, fullgraph=True, backend=backend, options=options)

    def __call__(self, *args: Any) -> Any:
        streams, rest = args[: self.num_streams], args[self.num_streams :]
        if streams[0].shape[1] < FEWEST_TOKENS:
            return self.eager(*args)
        out = self.compiled(*map(_any_length, streams), *rest)
        return out[None] if isinstance(out, Tensor) else tuple(part[None] for part in out)


def _any_length(stream: Tensor) -> Tensor:
    """[1, S, ...] -> [S, ...], laid out alike whatever it was cut from, with an S that no kernel may rely on."""
    tokens = stream.contiguous().flatten().view(stream.shape[1:])  # one head may have any stride otherwise
    torch._dynamo.mark_dynamic(tokens, 0)
    return tokens


@cache
def compiled_pieces(backend: str = "inductor") -> Pieces:
    """Those of the process: stages of the same shape share them."""
    return Pieces(
        project=Compiled(pieces.project, num_streams=3, backend=backend),
        attended=Compiled(pieces.attended, num_streams=2, backend=backend),
        mlp=Compiled(pieces.mlp, num_streams=1, backend=backend),
    )


def compile_layers(transformer: Transformer, *, backend: str = "inductor") -> None:
    """For batches of one, once the weights are in place. Kernels are made when a piece first runs."""
    for layer in transformer.block.layers:
        assert isinstance(layer, Layer)
        layer.attention.pieces = layer.mlp.pieces = compiled_pieces(backend)
