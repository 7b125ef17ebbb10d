"""Files that `torch.save` wrote: tensors are taken from them, code in them is never run."""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from model.weights.reader import WeightReader, WeightsMismatch, local_copy

AVERAGED = "ema_state_dict"  # where training runs leave the weights that are meant to be used
DAMAGED = (  # what torch.load raises for files that it cannot read; a damaged pickle leads anywhere
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


def read_checkpoint(reader: WeightReader, name: str) -> dict[str, Tensor]:
    """Tensors by name, `module.` before it removed: of `ema_state_dict` where there is one, else of the file itself.

    On this machine the file is mapped, so what is not used is not read. Raises WeightsMismatch for anything but tensors
    in plain containers.
    """
    with local_copy(reader, name) as path:
        if not _is_zip(path):
            raise WeightsMismatch(f"{name} is truncated, or not a file that torch.save wrote")
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except DAMAGED as error:
            raise WeightsMismatch(f"{name} is refused, nothing in it was run: {_reason(error)}") from error
    state = saved.get(AVERAGED, saved) if isinstance(saved, Mapping) else None
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise WeightsMismatch(f"{name} holds no table of tensors, expected them under {AVERAGED} or at its root")
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}


def _is_zip(path: Path) -> bool:
    """As torch.save writes them; older pickles, which cannot be mapped, are not taken."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def _reason(error: BaseException) -> str:
    """One line; torch's own begins with advice to load the file in spite of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("Weights only load failed")]
    return lines[0] if lines else type(error).__name__
