"""A small file system of its own for a test: a tmpfs in a mount namespace that a process of ours keeps open.

Reached from here through /proc/PID/root. Skips, saying so, where mounting is not permitted.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

TIMEOUT_S = 20


@dataclass(frozen=True)
class SmallDisk:
    path: Path  # its root, as seen from outside
    _keeper: int
    _inside: Path

    def remount(self, options: str) -> None:
        """`size=1m`, `ro`, `rw`."""
        command = ["nsenter", f"--target={self._keeper}", "--mount", "--user", "--preserve-credentials"]
        subprocess.run(
            [*command, "mount", "-o", f"remount,{options}", str(self._inside)], check=True, timeout=TIMEOUT_S
        )

    @property
    def used_bytes(self) -> int:
        return sum(path.stat().st_blocks * 512 for path in self.path.rglob("*"))


@contextmanager
def mounted(folder: Path, *, size: str) -> Iterator[SmallDisk]:
    script = f"mount -t tmpfs -o size={size} none '{folder}' && echo mounted && exec cat"
    with subprocess.Popen(
        ["unshare", "--mount", "--user", "--map-root-user", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        said = keeper.stdout.readline()
        if said != "mounted\n":
            keeper.stdin.close()
            pytest.skip(f"no file system can be mounted here, so none can be full: {said.strip()}")
        yield SmallDisk(Path(f"/proc/{keeper.pid}/root{folder}"), keeper.pid, folder)
        keeper.stdin.close()
