"""Temporary folders. Names of finishers' say whose they are, so that those of killed processes can be removed.

`happyhorse-<namespace of pids>-<pid>-...`: a pid means the same only to processes of one namespace, a container's or
the machine's. Where there is no /proc nothing is ever removed.
"""

import errno
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.store_errors import explain

PROC = Path("/proc")
NAME = re.compile(r"happyhorse-(\d+)-(\d+)-.*")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
SURE_S = 2.0  # the clocks of files and of processes may differ by so much
log = logging.getLogger(__name__)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """For what is on its way. StoreError where this machine's disk takes no more of it."""
    try:
        with tempfile.TemporaryDirectory(prefix="happyhorse-") as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise no_room(explain(error)) from error


def no_room(reason: str) -> StoreError:
    return StoreError(f"cannot write temporary files to {tempfile.gettempdir()}: {reason}; TMPDIR names another place")


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Removed at the end of a `with`, or by the next process of this machine that sweeps."""
    return tempfile.TemporaryDirectory(prefix=f"happyhorse-{_namespace(PROC)}-{os.getpid()}-")


def sweep(root: Path | None = None, *, proc: Path = PROC) -> list[Path]:
    """Removes folders of processes that are gone, as far as they let themselves be removed."""
    removed = []
    for folder in sorted((root or Path(tempfile.gettempdir())).glob("happyhorse-*")):
        match = NAME.fullmatch(folder.name)
        if match is None or int(match[1]) != _namespace(proc) or not _is_left(folder, pid=int(match[2]), proc=proc):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        removed.append(folder)
    if removed:
        log.info("removed %d temporary folders of processes that are gone", len(removed))
    return removed


def _namespace(proc: Path) -> int:
    """0: cannot be told."""
    try:
        return int(re.sub(r"\D", "", os.readlink(proc / "self/ns/pid")))
    except OSError:
        return 0


def _is_left(folder: Path, *, pid: int, proc: Path) -> bool:
    """Whether the process is gone, or started after the folder was changed last: then it is another one."""
    if not _namespace(proc):
        return False
    try:
        changed = folder.stat().st_mtime
        ticks = int((proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
        booted = next(line for line in (proc / "stat").read_text().splitlines() if line.startswith("btime "))
    except FileNotFoundError:
        return True
    except OSError:
        return False
    started = int(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    return started > changed + SURE_S
