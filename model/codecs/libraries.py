"""Modules of diffusers and transformers: built without memory, checked strictly, then filled by ranges."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model.codecs.parts import Built, built_from, read_json
from model.weights import (
    DTYPES,
    Index,
    TensorEntry,
    WeightReader,
    WeightsMismatch,
    check_tensors,
    read_index,
    read_tensor,
)


def build_empty(make: Callable[[], Any]) -> Any:
    """A module whose parameters take no memory; buffers that it computes for itself are there."""
    from accelerate import init_empty_weights

    quiet = warnings.catch_warnings(action="ignore", category=FutureWarning)  # about how they are written
    with quiet, init_empty_weights(include_buffers=False):
        module = make()
    return module.eval().requires_grad_(False)


def build_diffusers(kind: Any, reader: WeightReader, *, part: str, expected: Mapping[str, Any]) -> Any:
    """From `<part>/config.json`, without memory. `expected` are values that the model's own config asks for."""
    values = read_json(reader, f"{part}/config.json")
    known = inspect.signature(kind).parameters  # later versions write keys that decide nothing here
    values = {name: value for name, value in values.items() if name in known}
    for name, wanted in expected.items():
        if values.get(name) != wanted:
            raise WeightsMismatch(f"{part}/config.json: {name} is {values.get(name)}, expected {wanted}")
    return build_from(f"{part}/config.json", lambda: build_empty(lambda: kind(**values)))


def build_from(name: str, make: Callable[[], Built]) -> Built:
    """`built_from`, for diffusers and transformers."""
    from huggingface_hub.errors import StrictDataclassError

    return built_from(name, make, refusals=(StrictDataclassError,))


def same_name(stored: str) -> str | None:
    return stored


def find_tensors(
    module: nn.Module, reader: WeightReader, *, part: str, renamed: Callable[[str], str | None] = same_name
) -> dict[str, TensorEntry]:
    """Where each of an empty module's tensors lies in `<part>/`. Raises WeightsMismatch unless they are exactly there.

    `renamed` gives the module's name of a stored tensor, None for one that may be there and is not used.
    """
    index = read_index(reader, part)
    entries = {own: entry for name, entry in index.entries.items() if (own := renamed(name)) is not None}
    check_tensors(Index(entries, {}), _as_stored(module.state_dict(), entries), what=part)
    return entries


def fill(
    module: nn.Module,
    reader: WeightReader,
    entries: Mapping[str, TensorEntry],
    *,
    dtype: torch.dtype,
    device: str,
    kept: tuple[str, ...] = (),
) -> None:
    """Assign what `find_tensors` found, as `dtype` on `device`. Children that are not `kept` are dropped unread."""
    for child in [name for name, _ in module.named_children() if kept and name not in kept]:
        setattr(module, child, None)
    state = {name: read_tensor(reader, entries[name]).to(device, dtype) for name in module.state_dict()}
    module.load_state_dict(state, strict=True, assign=True)
    module.to(device)  # buffers


def _as_stored(expected: Mapping[str, Tensor], entries: Mapping[str, TensorEntry]) -> Iterator[tuple[str, Tensor]]:
    """Any floating-point dtype will do: these files are stored as their makers liked."""
    for name, tensor in expected.items():
        stored = DTYPES.get(entries[name].dtype) if name in entries else None
        yield name, tensor.to(stored) if stored is not None and stored.is_floating_point else tensor
