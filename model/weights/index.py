"""Where tensors lie: safetensors headers of one file, or of the shards that an index names. Reads nothing else.

A weights root holds a folder for each part (`base/`, `codec/`, `text/`), each with `model.safetensors`, or with shards
and `model.safetensors.index.json`; folders of diffusers say `diffusion_pytorch_model` for `model`.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from model.weights.reader import WeightReader, WeightsMismatch

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I64": torch.int64}
STEMS = ("model", "diffusion_pytorch_model")
MAX_HEADER_BYTES = 100_000_000
SHOWN = 10


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

    @property
    def files(self) -> list[str]:
        return sorted({entry.file for entry in self.entries.values()})

    @property
    def size_bytes(self) -> int:
        return sum(entry.stop - entry.start for entry in self.entries.values())


def read_index(reader: WeightReader, part: str, *, stem: str | None = None) -> Index:
    """Headers of `<part>/model.safetensors`, of the shards its index names, or of `<part>.safetensors`.

    `stem` says which of the known names is meant for `model`. Raises WeightsMismatch where none of the files is there
    or one is damaged.
    """
    return index_of(reader, part_files(reader, part, stem=stem))


def part_files(reader: WeightReader, part: str, *, stem: str | None = None) -> list[str]:
    """The safetensors files of a part. Raises WeightsMismatch where there are none, or fewer than the index names."""
    names = set(reader.names())
    if f"{part}.safetensors" in names:
        return [f"{part}.safetensors"]
    stems = STEMS if stem is None else (stem,)
    for stem in stems:
        single, sharded = f"{part}/{stem}.safetensors", f"{part}/{stem}.safetensors.index.json"
        if sharded in names:
            return _sharded_files(reader, part, sharded, names)
        if single in names:
            return [single]
    single = f"{part}/{stems[0]}.safetensors"
    raise WeightsMismatch(f"neither {single} nor {single}.index.json is there")


def _sharded_files(reader: WeightReader, part: str, index: str, names: set[str]) -> list[str]:
    try:
        weight_map = json.loads(reader.read(index, 0, reader.size_bytes(index)))["weight_map"]
        files = sorted({f"{part}/{file}" for file in weight_map.values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsMismatch(f"{index} is not an index of shards: {type(error).__name__} {error}") from error
    absent = [file for file in files if file not in names]
    if absent:
        more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
        raise WeightsMismatch(f"{index} names {', '.join(absent[:SHOWN])}{more}, which is not there")
    return files


def index_of(reader: WeightReader, files: Iterable[str]) -> Index:
    """All tensors of some files. Raises WeightsMismatch for a damaged file, or a tensor that is in two."""
    entries: dict[str, TensorEntry] = {}
    metadata: dict[str, str] = {}
    for file in files:
        header, data_start = read_header(reader, file)
        metadata |= header.pop("__metadata__", {})  # `read_header` saw that it is a table
        for name, value in header.items():
            if name in entries:
                raise WeightsMismatch(f"{name} is in {entries[name].file} and again in {file}")
            entries[name] = entry_of(file, name, value, data_start)
    return Index(entries, metadata)


def read_header(reader: WeightReader, file: str) -> tuple[dict[str, Any], int]:
    """The header's table and where the data begin. WeightsMismatch for a file that is no safetensors, or not whole."""
    size = reader.size_bytes(file)
    length = int.from_bytes(reader.read(file, 0, 8), "little") if size >= 8 else size
    if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
        raise WeightsMismatch(f"{file} ({size} bytes) is truncated or not a safetensors file")
    try:
        header: dict[str, Any] = json.loads(reader.read(file, 8, 8 + length))
        if not isinstance(header.get("__metadata__", {}), dict):
            raise TypeError("its metadata are no table")
        ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
        described = max(ends, default=0) + 8 + length
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise WeightsMismatch(f"{file} is not a safetensors file: {error}") from error
    if described != size:
        what = "truncated" if described > size else "not whole, or something was added to it"
        raise WeightsMismatch(f"{file} has {size} bytes, its header describes {described}: the file is {what}")
    return header, 8 + length


def entry_of(file: str, name: str, value: dict[str, Any], data_start: int) -> TensorEntry:
    """One line of a header. WeightsMismatch where its bytes are not as many as its shape and dtype need."""
    try:
        start, stop = value["data_offsets"]
        shape, dtype = tuple(value["shape"]), value["dtype"]
        if any(type(number) is not int for number in (start, stop, *shape)):
            raise TypeError("its sizes and places are not whole numbers")
        needed = math.prod(shape) * DTYPES[dtype].itemsize if dtype in DTYPES else stop - start
        fits = start >= 0 and stop - start == needed and all(size >= 0 for size in shape)
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsMismatch(f"{file}: {name} is not described as safetensors are: {error}") from error
    if not fits:
        raise WeightsMismatch(
            f"{file}: {name} is {dtype} {list(shape)} in bytes {start} to {stop}: the file is damaged"
        )
    return TensorEntry(file, dtype, shape, data_start + start, data_start + stop)
