"""Makes compiled kernels in spite of what killed processes have left where torch keeps them.

torch lets compiler and linker write under final names, takes whatever lies there, and where a library does not load
that only probes the processor it silently compiles for a lesser one: other numbers. So half-written libraries are
removed first, and what torch still cannot use is compiled once more in a folder of its own, which later runs find.
Nor does anything compile for a CPU before the probes say what the processor promises (`model/probes.py`).
"""

import fcntl
import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path

import torch

from model.probes import forget_probes, lesser_processor

SIBLING = "-again"  # the name of the other folder ends so
log = logging.getLogger(__name__)


class KernelsError(RuntimeError):
    """torch cannot compile here, neither beside what it has kept nor from nothing."""


def with_kernels(run: Callable[[], object], *, device: str) -> None:
    """Carries out what has torch compile. Raises KernelsError; what `run` itself raises goes through."""
    from torch._inductor import config
    from torch._inductor.runtime.cache_dir_utils import cache_dir
    from torch._inductor.utils import clear_caches

    config.cpp_cache_precompile_headers = False  # gains nothing for four kernels, and a half one breaks all others
    kept = Path(cache_dir())
    remove_halves(kept)
    reason = _tried(run, kept, device=device)
    if reason is None:
        return
    other = kept.with_name(kept.name + SIBLING)
    log.warning("torch cannot use the kernels that it keeps in %s, and compiles anew in %s: %s", kept, other, reason)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(other)  # torch looks there each time
    remove_halves(other)
    torch._dynamo.reset()
    clear_caches()
    forget_probes()
    reason = _tried(run, other, device=device)
    if reason is not None:
        raise KernelsError(
            f"model.compiled: torch can compile neither with what it keeps in {kept} nor in {other}: {reason}. Is "
            "there a C++ compiler on this node, and one that knows its processor (else ATEN_CPU_CAPABILITY names a "
            "lesser)? If so, empty both folders, or name another by TORCHINDUCTOR_CACHE_DIR"
        )


def _tried(run: Callable[[], object], folder: Path, *, device: str) -> str | None:
    """Why torch failed, in one line; not the error, whose frames hold tensors."""
    from torch._dynamo.exc import BackendCompilerFailed

    if device == "cpu" and (reason := _misjudged(folder)) is not None:
        return reason
    try:
        run()
    except (BackendCompilerFailed, ImportError, OSError) as error:
        cause = error.inner_exception if isinstance(error, BackendCompilerFailed) else error
        lines = [line for line in f"{type(cause).__name__}: {cause}".splitlines() if line.strip()]
        telling = [line for line in lines[1:] if "rror" in line]
        return " ".join([*lines[:1], *telling[:1]])
    return None


def _misjudged(folder: Path) -> str | None:
    """Looks twice: who was at work on a library when we came may have died over it while torch waited."""
    reason = lesser_processor()
    if reason is None:
        return None
    log.warning("torch probes the processor again: %s", reason)
    remove_halves(folder)
    forget_probes()
    return lesser_processor()


def remove_halves(folder: Path) -> list[Path]:
    """Of torch's libraries those that end too soon, unless somebody is at work on them."""
    halves = [each for each in folder.glob("*/*.so") if not is_whole(each)]
    removed = [each for each in halves if _remove(each, lock=folder / "locks" / f"{each.name.partition('.')[0]}.lock")]
    if removed:
        log.warning("removed %d half-written libraries from %s: they are compiled again", len(removed), folder)
    return removed


def _remove(path: Path, *, lock: Path) -> bool:
    lock.parent.mkdir(exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as torch does while it writes; let go of by a death
        except BlockingIOError:
            return False
        if is_whole(path):
            return False
        path.unlink(missing_ok=True)
    return True


def is_whole(library: Path) -> bool:
    """By its own header: a linker puts the table of sections last. True for what is not ELF of 64 bits at all."""
    try:
        with library.open("rb") as file:
            head = file.read(64)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return True  # gone since
    if len(head) < 64 or not any(head):
        return False
    if head[:6] != b"\x7fELF\x02\x01":
        return True
    (at,), (length, count) = struct.unpack_from("<Q", head, 40), struct.unpack_from("<HH", head, 58)
    return bool(size >= at + length * count)
