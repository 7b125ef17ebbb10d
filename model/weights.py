"""Reads safetensors by explicit byte ranges: a rank reads its own slices and nothing is loaded that is not asked for.

Knows the file format and the strict comparison with what a model expects; knows neither storage nor Ray. A weights
root holds a folder for each part (`base/`, `codec/`, `text/`), each with `model.safetensors`, or with shards and
`model.safetensors.index.json`.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from model.config import TransformerConfig
from model.parallel import Cut, cut_of
from model.transformer import Transformer

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I64": torch.int64}
DIFFUSERS_STEM = "diffusion_pytorch_model"
MAX_HEADER_BYTES = 100_000_000
FULL_DIGEST_BYTES = 256 * 1024 * 1024
SAMPLE_BYTES = 4096
SHOWN = 10


class WeightsMismatch(ValueError):
    """The files are not those the model's config asks for; the message says which tensors and how."""


class WeightReader(Protocol):
    """Files below a weights root, read by ranges."""

    def names(self) -> list[str]: ...

    def size_bytes(self, name: str, /) -> int: ...

    def read(self, name: str, start: int, stop: int, /) -> bytes: ...


class LocalWeights:
    """A `WeightReader` over a folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())

    def size_bytes(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def read(self, name: str, start: int, stop: int) -> bytes:
        with (self.root / name).open("rb", buffering=0) as file:
            pieces = []
            while start < stop:
                piece = os.pread(file.fileno(), min(stop - start, 1 << 30), start)
                if not piece:
                    raise WeightsMismatch(f"{name} ends at byte {start}, expected {stop}: the file is truncated")
                pieces.append(piece)
                start += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies: bytes start..stop of a file."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Index:
    """All tensors of one part, and the metadata of its files."""

    entries: dict[str, TensorEntry]
    metadata: dict[str, str]


def read_index(reader: WeightReader, part: str) -> Index:
    """Headers of `<part>/model.safetensors`, of the shards its index names, or of `<part>.safetensors`.

    In diffusers' folders, `model` is called `diffusion_pytorch_model`. Raises WeightsMismatch where none of them is
    there or one is damaged.
    """
    names = set(reader.names())
    stem = "model" if not any(name.startswith(f"{part}/{DIFFUSERS_STEM}.") for name in names) else DIFFUSERS_STEM
    single, sharded = f"{part}/{stem}.safetensors", f"{part}/{stem}.safetensors.index.json"
    if f"{part}.safetensors" in names:
        single = f"{part}.safetensors"
    if sharded in names:
        weight_map = json.loads(reader.read(sharded, 0, reader.size_bytes(sharded)))["weight_map"]
        files = sorted({f"{part}/{file}" for file in weight_map.values()})
    elif single in names:
        files = [single]
    else:
        raise WeightsMismatch(f"neither {single} nor {sharded} is there")
    absent = [file for file in files if file not in names]
    if absent:
        raise WeightsMismatch(f"{sharded} names {', '.join(absent[:SHOWN])}, which is not there")
    entries: dict[str, TensorEntry] = {}
    metadata: dict[str, str] = {}
    for file in files:
        header, data_start = _read_header(reader, file)
        metadata |= header.pop("__metadata__", {})
        entries |= {name: _entry(file, value, data_start) for name, value in header.items()}
    return Index(entries, metadata)


def _read_header(reader: WeightReader, file: str) -> tuple[dict[str, Any], int]:
    size = reader.size_bytes(file)
    length = int.from_bytes(reader.read(file, 0, 8), "little") if size >= 8 else size
    if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
        raise WeightsMismatch(f"{file} ({size} bytes) is truncated or not a safetensors file")
    try:
        header: dict[str, Any] = json.loads(reader.read(file, 8, 8 + length))
        ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsMismatch(f"{file} is not a safetensors file: {error}") from error
    if max(ends, default=0) + 8 + length != size:
        raise WeightsMismatch(
            f"{file} has {size} bytes, its header describes {max(ends, default=0) + 8 + length}: the file is truncated"
        )
    return header, 8 + length


def _entry(file: str, value: dict[str, Any], data_start: int) -> TensorEntry:
    start, stop = value["data_offsets"]
    return TensorEntry(file, value["dtype"], tuple(value["shape"]), data_start + start, data_start + stop)


def check_tensors(index: Index, expected: Iterable[tuple[str, Tensor]], *, what: str) -> None:
    """Compare names, shapes and dtypes with those expected. Raises WeightsMismatch listing every kind of difference."""
    wanted = dict(expected)
    missing = sorted(wanted.keys() - index.entries.keys())
    unexpected = sorted(index.entries.keys() - wanted.keys())
    wrong = []
    for name in sorted(wanted.keys() & index.entries.keys()):
        entry, tensor = index.entries[name], wanted[name]
        if entry.shape != tuple(tensor.shape):
            wrong.append(f"{name} is {list(entry.shape)}, expected {list(tensor.shape)}")
        elif DTYPES.get(entry.dtype) != tensor.dtype:
            wrong.append(f"{name} is {entry.dtype}, expected {tensor.dtype}")
    lines = []
    for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape or dtype", wrong)):
        if names:
            more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"  {len(names)} {kind}: {', '.join(names[:SHOWN])}{more}")
    if lines:
        raise WeightsMismatch("\n".join([f"{what}: tensors do not match the model's config", *lines]))


def read_tensor(reader: WeightReader, entry: TensorEntry, cut: Cut | None = None) -> Tensor:
    """A tensor, or the share of it that `cut` describes. Rows are read alone; columns need the whole tensor once."""
    dtype = DTYPES[entry.dtype]
    if cut is None or cut.dim == 1:
        whole = _from_bytes(reader.read(entry.file, entry.start, entry.stop), dtype, entry.shape)
        return whole if cut is None else _take_columns(whole, cut)
    row_bytes = (entry.stop - entry.start) // entry.shape[0]
    share = torch.zeros((cut.size, *entry.shape[1:]), dtype=dtype)
    at = 0
    for piece in cut.pieces:
        count = piece.stop - piece.start
        if count:
            first = entry.start + piece.start * row_bytes
            data = reader.read(entry.file, first, first + count * row_bytes)
            share[at : at + count] = _from_bytes(data, dtype, (count, *entry.shape[1:]))
        at += count + piece.pad
    return share


def _take_columns(whole: Tensor, cut: Cut) -> Tensor:
    share = whole.new_zeros((whole.shape[0], cut.size))
    at = 0
    for piece in cut.pieces:
        share[:, at : at + piece.stop - piece.start] = whole[:, piece.start : piece.stop]
        at += piece.stop - piece.start + piece.pad
    return share


def _from_bytes(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


def transformer_index(reader: WeightReader, *, part: str, config: TransformerConfig) -> Index:
    """Where a Transformer's tensors lie, checked against its config. Reads headers alone."""
    with torch.device("meta"):  # the full-size layout, built without memory
        layout = Transformer(config, dtype=torch.bfloat16)
    index = read_index(reader, part)
    check_tensors(index, layout.state_dict().items(), what=part)
    return index


def load_transformer_weights(
    model: nn.Module, reader: WeightReader, *, part: str, config: TransformerConfig, tp: int, rank: int, device: str
) -> None:
    """Fill a model that `shard` prepared on the meta device from a checkpoint in the released layout."""
    index = transformer_index(reader, part=part, config=config)
    state = {}
    for name, parameter in model.state_dict().items():
        share = read_tensor(reader, index.entries[name], cut_of(name, config, tp=tp, rank=rank) if tp > 1 else None)
        state[name] = share.to(device=device, dtype=parameter.dtype)
    model.load_state_dict(state, strict=True, assign=True)


def load_module(module: nn.Module, reader: WeightReader, *, part: str) -> None:
    """Fill a small module whole and strictly from `<part>/`."""
    index = read_index(reader, part)
    check_tensors(index, module.state_dict().items(), what=part)
    module.load_state_dict({name: read_tensor(reader, entry) for name, entry in index.entries.items()}, strict=True)


def weights_digest(reader: WeightReader) -> str:
    """SHA-256 that changes with the weights: of whole files up to 256 MiB, of headers and samples of larger ones."""
    digest = hashlib.sha256()
    for name in reader.names():
        if not name.endswith(".safetensors"):
            continue
        size = reader.size_bytes(name)
        digest.update(f"{name} {size}\n".encode())
        if size <= FULL_DIGEST_BYTES:
            digest.update(reader.read(name, 0, size))
            continue
        header, data_start = _read_header(reader, name)
        digest.update(json.dumps(header, sort_keys=True).encode())
        for tensor, value in sorted(header.items()):
            if tensor != "__metadata__":
                entry = _entry(name, value, data_start)
                digest.update(reader.read(name, entry.start, min(entry.stop, entry.start + SAMPLE_BYTES)))
    return digest.hexdigest()
