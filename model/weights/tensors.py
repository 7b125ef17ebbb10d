"""One tensor, or a rank's share of it, read straight into the memory where it stays: no copy beside it."""

import ctypes

import torch
from torch import Tensor

from model.parallel import Cut
from model.weights.index import DTYPES, TensorEntry
from model.weights.reader import WeightReader

PIECE_BYTES = 64 << 20  # of a tensor that is cut by columns, in memory at a time


def read_tensor(reader: WeightReader, entry: TensorEntry, cut: Cut | None = None) -> Tensor:
    """A tensor, or the share of it that `cut` describes. Rows are read alone; columns need the whole tensor once."""
    if cut is not None:
        return _read_rows(reader, entry, cut) if cut.dim == 0 else _read_columns(reader, entry, cut)
    whole = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
    reader.read_into(entry.file, entry.start, memory_of(whole))
    return whole


def memory_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor in this machine's memory, writable; valid as long as the tensor lives."""
    assert tensor.is_contiguous()
    assert tensor.device.type == "cpu"
    if not tensor.numel():
        return memoryview(b"")
    # By address, since the core does without numpy; a bytearray under the tensor would be aligned to 16 bytes only.
    return memoryview((ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def _read_rows(reader: WeightReader, entry: TensorEntry, cut: Cut) -> Tensor:
    row_bytes = (entry.stop - entry.start) // max(1, entry.shape[0])
    share = torch.empty((cut.size, *entry.shape[1:]), dtype=DTYPES[entry.dtype])
    at = 0
    for piece in cut.pieces:
        count = piece.stop - piece.start
        if count:
            reader.read_into(entry.file, entry.start + piece.start * row_bytes, memory_of(share[at : at + count]))
        share[at + count : at + count + piece.pad] = 0
        at += count + piece.pad
    return share


def _read_columns(reader: WeightReader, entry: TensorEntry, cut: Cut) -> Tensor:
    rows, columns = entry.shape
    dtype = DTYPES[entry.dtype]
    row_bytes = columns * dtype.itemsize
    share = torch.zeros((rows, cut.size), dtype=dtype)
    step = max(1, PIECE_BYTES // max(1, row_bytes))
    buffer = torch.empty((min(step, rows), columns), dtype=dtype)
    for first in range(0, rows, step):
        band = buffer[: min(step, rows - first)]
        reader.read_into(entry.file, entry.start + first * row_bytes, memory_of(band))
        at = 0
        for piece in cut.pieces:
            count = piece.stop - piece.start
            share[first : first + len(band), at : at + count] = band[:, piece.start : piece.stop]
            at += count + piece.pad
    return share
