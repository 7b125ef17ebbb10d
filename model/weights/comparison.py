"""What a part holds against what it should hold: names, shapes and dtypes, strictly."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from model.weights.index import DTYPES, SHOWN, Index
from model.weights.reader import WeightsMismatch


def check_tensors(index: Index, expected: Iterable[tuple[str, Tensor]], *, what: str) -> None:
    """Compare names, shapes and dtypes with those expected. Raises WeightsMismatch listing every kind of difference."""
    wanted = dict(expected)
    shapes, dtypes = [], []
    for name in sorted(wanted.keys() & index.entries.keys()):
        entry, tensor = index.entries[name], wanted[name]
        if entry.shape != tuple(tensor.shape):
            shapes.append(f"{name} is {list(entry.shape)}, expected {list(tensor.shape)}")
        if DTYPES.get(entry.dtype) != tensor.dtype:
            dtypes.append(f"{name} is {entry.dtype}, expected {_stored_name(tensor)}")
    raise_for(
        what,
        {
            "missing": sorted(wanted.keys() - index.entries.keys()),
            "unexpected": sorted(index.entries.keys() - wanted.keys()),
            "of another shape": shapes,
            "of another dtype": dtypes,
        },
    )


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, what: str) -> None:
    """The same for tensors at hand, such as those of a `.ckpt`; any floating-point dtype will do for another."""
    dtypes = [
        f"{name} is {state[name].dtype}, expected floating point"
        for name in sorted(state.keys() & expected.keys())
        if expected[name].is_floating_point() and not state[name].is_floating_point()
    ]
    shapes = [
        f"{name} is {list(state[name].shape)}, expected {list(expected[name].shape)}"
        for name in sorted(state.keys() & expected.keys())
        if state[name].shape != expected[name].shape
    ]
    raise_for(
        what,
        {
            "missing": sorted(expected.keys() - state.keys()),
            "unexpected": sorted(state.keys() - expected.keys()),
            "of another shape": shapes,
            "of another dtype": dtypes,
        },
    )


def raise_for(what: str, differences: Mapping[str, list[str]]) -> None:
    """Raises WeightsMismatch unless every list is empty."""
    found = {kind: names for kind, names in differences.items() if names}
    if not found:
        return
    lines = [f"{what}: tensors do not match the model's config"]
    for kind, names in found.items():
        more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"  {len(names)} {kind}: {', '.join(names[:SHOWN])}{more}")
    findings = tuple(f"{kind}: {name}" for kind, names in found.items() for name in names)
    raise WeightsMismatch("\n".join(lines), findings=findings)


def _stored_name(tensor: Tensor) -> str:
    return next((name for name, dtype in DTYPES.items() if dtype == tensor.dtype), str(tensor.dtype))
