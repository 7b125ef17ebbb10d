"""On the path of the storm's processes, and of crews on real Ray: steps as long as a large model's, a clip that kills
whoever renders it, clips that no card holds, and nodes on which nothing works.

Python imports it at start. It waits for the modules below to be imported and changes one function in each.
"""

import errno
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

POISON_SEED = 666
MEMORY_SEED, LONELY_MEMORY_SEED = 667, 668  # clips for which every rank, and rank 1 alone, runs out of memory
BROKEN = "HAPPYHORSE_STORM_BROKEN"  # set in the environment of a node on which everything fails
PACE = "HAPPYHORSE_STORM_PACE"  # a file: seconds that each step sleeps, so that clips outlast what happens to them


def poison(module: ModuleType) -> None:
    """A rank that takes the poisonous clip on is gone; on a broken node none can compute."""
    render: Callable[..., Any] = module.Renderer.render

    def slowly(on_step: Callable[[int, int], None], seed: int) -> Callable[[int, int], None]:
        def stepped(done: int, total: int) -> None:
            if seed in (MEMORY_SEED, LONELY_MEMORY_SEED):
                run_out_of_memory(module, alone=seed == LONELY_MEMORY_SEED)
            if PACE in os.environ:
                time.sleep(float(Path(os.environ[PACE]).read_text()))
            on_step(done, total)

        return stepped

    def poisoned(self: Any, request: Any, *, on_step: Callable[[int, int], None] = lambda done, total: None) -> Any:
        if os.environ.get(BROKEN):
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered (made by the storm)")
        if request.seed == POISON_SEED:
            os.kill(os.getpid(), signal.SIGKILL)
        return render(self, request, on_step=slowly(on_step, request.seed))

    module.Renderer.render = poisoned


def run_out_of_memory(module: ModuleType, *, alone: bool) -> None:
    """After the first step: the others are in the next collective, unless they stop at the same place."""
    if not alone or module.dist.get_rank() == 1:
        raise module.torch.OutOfMemoryError("CUDA out of memory (made by a test)")


def no_prompts(module: ModuleType) -> None:
    if os.environ.get(BROKEN):
        module.FoalTextEncoder.encode = broken


def no_files(module: ModuleType) -> None:
    if os.environ.get(BROKEN):
        module.encode_clip = broken  # type: ignore[attr-defined]


def broken(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EIO, "Input/output error (made by the storm)")


CHANGES: dict[str, Callable[[ModuleType], None]] = {
    "model.renderer": poison,
    "model.text": no_prompts,
    "pipeline.media": no_files,
}


class Changed(importlib.abc.MetaPathFinder):
    """Finds a module as it would be found anyway, and changes it once it is loaded."""

    def __init__(self) -> None:
        self._done: set[str] = set()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in CHANGES or name in self._done:
            return None
        self._done.add(name)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def load_and_change(module: ModuleType) -> None:
            load(module)
            CHANGES[name](module)

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Changed())
