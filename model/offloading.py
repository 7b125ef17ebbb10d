"""Puts weights where `model/placing.py` says. accelerate is imported when something is offloaded."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from model.placing import GB, Placing

EVERYTHING = 1 << 50  # bytes


class Swapped:
    """A module whose tensors lie in the host's memory, pinned where there is a card, and work on `device`."""

    def __init__(self, module: nn.Module, *, device: str) -> None:
        self._device = device
        self._tensors = [*module.parameters(), *module.buffers()]
        if torch.device(device).type == "cuda":
            for tensor in self._tensors:
                tensor.data = tensor.data.pin_memory()
        self._home = [tensor.data for tensor in self._tensors]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Nothing is copied back: weights do not change."""
        try:
            for tensor, home in zip(self._tensors, self._home, strict=True):
                tensor.data = home.to(self._device, non_blocking=True, copy=True)
            yield
        finally:
            self._put_back()

    def _put_back(self) -> None:
        for tensor, home in zip(self._tensors, self._home, strict=True):
            tensor.data = home


def offload(
    module: nn.Module,
    *,
    limits: Mapping[int | str, int] | None,
    device: str,
    no_split: list[str],
    preloaded: Sequence[str] = (),
    folder: Path | None = None,
) -> None:
    """Spreads a module that is on the CPU over the places that `limits` names, in that order, with so many bytes each.

    Places are numbers of cards, `cpu` and `disk` (below `folder`); None: as accelerate finds them. What runs elsewhere
    than on a card that it lies on runs on `device`, and of it only what runs is there: a linear map, or the whole of a
    module whose class is `preloaded`, which uses its parts' weights itself. `no_split`: classes that lie in one place.
    """
    from accelerate import cpu_offload, disk_offload, dispatch_model, infer_auto_device_map

    given = None if limits is None else dict(limits)
    places = infer_auto_device_map(module, max_memory=given, no_split_module_classes=no_split)
    used, classes = set(places.values()), list(preloaded) or None
    main = torch.device(device)
    if used == {"cpu"}:
        cpu_offload(module, execution_device=main, preload_module_classes=classes)
    elif used == {"disk"}:
        disk_offload(module, offload_dir=folder, execution_device=main, preload_module_classes=classes)
    else:
        dispatch_model(module, places, main_device=_place_of(main), offload_dir=folder, preload_module_classes=classes)


def stage_limits(placing: Placing, *, device: str, num_stages: int) -> dict[int | str, int]:
    """Of one of a rank's stages that are offloaded."""
    on_card = {_place_of(torch.device(device)): round(placing.stages_gb * GB / num_stages)}
    if placing.stages == "disk":
        return on_card | {"disk": EVERYTHING}
    return {**on_card, "cpu": EVERYTHING}


def text_limits(placing: Placing, *, cards: int) -> dict[int | str, int] | None:
    """Of a text encoder that is not simply on the CPU, in a process that sees so many cards."""
    if placing.text == "disk":
        return {"cpu": round(placing.text_gb * GB), "disk": EVERYTHING}
    if placing.text == "offloaded" or not cards:
        return {"cpu": EVERYTHING}
    if not placing.text_gb:
        return None
    return {card: round(placing.text_gb * GB) for card in range(cards)} | {"cpu": EVERYTHING}


def _place_of(device: torch.device) -> int | str:
    """As accelerate calls it."""
    return "cpu" if device.type == "cpu" else device.index or 0
