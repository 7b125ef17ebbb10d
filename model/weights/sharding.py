"""Weights cut once and for all: a file for each rank, with what it reads and nothing else.

`shards.json`, beside the parts, is written last; it holds the number of ranks, the parts that are cut, and digests:
of the weights that were cut, and of the files that were copied. A part's files are `rank0-of-4.safetensors` and so on.
Padding is not stored.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, BinaryIO

import torch
from torch import Tensor

from model.config import TransformerConfig
from model.parallel import Cut, Piece, cut_of
from model.transformer import Transformer
from model.weights.comparison import check_tensors
from model.weights.index import DTYPES, Index, index_of, read_index
from model.weights.reader import WeightReader, WeightsMismatch
from model.weights.tensors import memory_of, read_tensor

SHARDS = "shards.json"
FORMAT = 1
_FLAGS = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, kw_only=True)
class Shards:
    """What `shards.json` says."""

    tp: int
    digest: str  # of the weights that were cut, as `weights_digest` gives it for the parts below
    parts: tuple[str, ...]  # all parts that the model uses
    cut: tuple[str, ...]  # those of them that are cut
    copied: Mapping[str, str]  # file of another part -> its digest

    def to_json(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, sort_keys=True).encode() + b"\n"


def read_shards(reader: WeightReader) -> Shards | None:
    """None: the weights are not cut. WeightsMismatch for a file that says nothing of the kind."""
    if SHARDS not in reader.names():
        return None
    try:
        values: dict[str, Any] = json.loads(reader.read(SHARDS, 0, reader.size_bytes(SHARDS)))
        if values.pop("format") != FORMAT:
            raise ValueError("it has another format")
        shards = _shards_from(values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsMismatch(f"{SHARDS} does not say how the weights are cut: {error}") from error
    return shards


def _shards_from(values: dict[str, Any]) -> Shards:
    """KeyError, TypeError or ValueError for what `to_json` does not write."""
    wanted = {"tp": int, "digest": str, "parts": list, "cut": list, "copied": dict}
    if values.keys() != wanted.keys():
        raise ValueError(f"it has {', '.join(sorted(values))}, expected {', '.join(sorted(wanted))}")
    for name, kind in wanted.items():
        if type(values[name]) is not kind:
            raise TypeError(f"{name} is {values[name]!r}, expected {kind.__name__}")
    if values["tp"] < 1:
        raise ValueError(f"tp is {values['tp']}, expected at least 1")
    for name in ("parts", "cut", "copied"):
        texts = [*values[name], *(values[name].values() if name == "copied" else ())]
        strays = [text for text in texts if not isinstance(text, str)]
        if strays:
            raise TypeError(f"{name} has {strays[0]!r}, expected str")
    return Shards(**values | {"parts": tuple(values["parts"]), "cut": tuple(values["cut"])})


def rank_file(part: str, *, tp: int, rank: int) -> str:
    return f"{part}/rank{rank}-of-{tp}.safetensors"


def layout_of(config: TransformerConfig) -> dict[str, Tensor]:
    """Every tensor of a Transformer as it is stored, without memory."""
    with torch.device("meta"):
        return Transformer(config, dtype=torch.bfloat16).state_dict()


def source_index(reader: WeightReader, *, part: str, config: TransformerConfig) -> Index:
    """Where the tensors of a Transformer that is not cut lie, checked against its config. Reads headers alone."""
    index = read_index(reader, part)
    check_tensors(index, layout_of(config).items(), what=part)
    return index


def rank_index(
    reader: WeightReader, shards: Shards, *, part: str, config: TransformerConfig, tp: int, rank: int
) -> Index:
    """The same for one rank's file. WeightsMismatch where it is not the file of that rank, size and source."""
    if shards.tp != tp:
        raise WeightsMismatch(
            f"the files are cut for {shards.tp} ranks, this run has {tp}: expected parallel=tp{shards.tp}, or weights "
            f"that `happyhorse weights shard` cut for tp={tp}, or weights that are not cut"
        )
    file = rank_file(part, tp=tp, rank=rank)
    if part not in shards.cut or file not in reader.names():
        raise WeightsMismatch(f"{file} is not there, though {SHARDS} says that weights are cut for {tp} ranks")
    index = index_of(reader, [file])
    said = {name: index.metadata.get(name) for name in ("part", "tp", "rank", "source")}
    wanted = {"part": part, "tp": str(tp), "rank": str(rank), "source": shards.digest}
    if said != wanted:
        raise WeightsMismatch(f"{file} says that it is {said}, expected {wanted}")
    check_tensors(index, _rank_layout(config, tp=tp, rank=rank).items(), what=file)
    return index


def write_rank_file(
    file: BinaryIO,
    reader: WeightReader,
    *,
    part: str,
    config: TransformerConfig,
    tp: int,
    rank: int,
    source: str,
) -> None:
    """One rank's safetensors file, tensor by tensor: memory holds one share and a piece of its tensor."""
    index = source_index(reader, part=part, config=config)
    layout = _rank_layout(config, tp=tp, rank=rank)
    metadata = {"part": part, "tp": str(tp), "rank": str(rank), "source": source}
    file.write(_header(layout, metadata))
    for name in layout:
        cut = cut_of(name, config, tp=tp, rank=rank)
        _write_tensor(file, read_tensor(reader, index.entries[name], None if cut is None else _unpadded(cut)))


def _write_tensor(file: BinaryIO, tensor: Tensor) -> None:
    file.write(memory_of(tensor))


def packed(cut: Cut) -> Cut | None:
    """A rank's cut of the whole tensor -> how its own file, where the pieces lie end to end, fills the same shape."""
    joined = tuple(_joined(_end_to_end(cut)))
    return Cut(cut.dim, joined) if any(piece.pad for piece in joined) else None


def _end_to_end(cut: Cut) -> Iterator[Piece]:
    at = 0
    for piece in cut.pieces:
        yield Piece(at, at + piece.stop - piece.start, piece.pad)
        at += piece.stop - piece.start


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Neighbours without padding between them are read as one."""
    before: Piece | None = None
    for piece in pieces:
        if before is not None and not before.pad:
            piece = Piece(before.start, piece.stop, piece.pad)
        elif before is not None:
            yield before
        before = piece
    if before is not None:
        yield before


def _unpadded(cut: Cut) -> Cut:
    return Cut(cut.dim, tuple(Piece(piece.start, piece.stop) for piece in cut.pieces))


def _rank_layout(config: TransformerConfig, *, tp: int, rank: int) -> dict[str, Tensor]:
    """Every tensor of one rank's file, without memory."""
    layout = layout_of(config)
    for name, whole in layout.items():
        cut = cut_of(name, config, tp=tp, rank=rank)
        if cut is not None:
            shape = list(whole.shape)
            shape[cut.dim] = _unpadded(cut).size
            layout[name] = torch.empty(shape, dtype=whole.dtype, device="meta")
    return layout


def _header(layout: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Of a safetensors file that holds the tensors in this order."""
    ends = [0]
    for tensor in layout.values():
        ends.append(ends[-1] + tensor.nbytes)
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    for (name, tensor), offsets in zip(layout.items(), pairwise(ends), strict=True):
        table[name] = {"dtype": _FLAGS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": list(offsets)}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return struct.pack("<Q", len(text)) + text
