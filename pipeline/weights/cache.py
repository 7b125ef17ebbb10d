"""Ranges of objects kept on a node's disk: of all processes that want a range one fetches it, the others read its file.

A range is one file, `<object>/<start>-<stop>`; `<object>` is a hash of address, size and version, so that a changed
object is another one. Files appear whole (temporary file, fsync, rename); a folder that cannot be used only costs time.
"""

import fcntl
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SMALLEST_BYTES = 256 << 10  # what is smaller is fetched sooner than found
NUM_LOCKS = 256
LOCK_WAIT_S = 300.0  # then somebody's fetch hangs, and one's own may not
LOCK_POLL_S = 0.02
KEEP_FREE = 0.05  # of the disk; Ray stops using one that is fuller than this
EVICTED_TO = 0.9  # of the bound, so that not every new file starts a search for old ones
ABANDONED_S = 3600.0
TEMPORARY = ".part"
log = logging.getLogger(__name__)


class RangeCache:
    """A folder of ranges, safe to share between processes of one machine."""

    def __init__(self, folder: Path, *, limit_bytes: int, keep_free: float = KEEP_FREE) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.keep_free = keep_free
        self.refused = ""  # why nothing more is kept

    def read(self, key: str, start: int, buffer: memoryview, fetch: Callable[[], None]) -> bool:
        """Fills `buffer` from the file of this range, or by `fetch`, which fills it; it is kept then.

        `key` names a version of an object (`object_key`). Returns whether it was there. Raises what `fetch` raises.
        """
        size = len(buffer)
        if size < SMALLEST_BYTES or size > self.limit_bytes:
            fetch()
            return False
        path = self.folder / key / f"{start}-{start + size}"
        if _filled(path, buffer):
            return True
        with self._turn(path):
            if _filled(path, buffer):
                return True
            fetch()
            if not self.refused:
                self._keep(path, buffer)
        return False

    def _keep(self, path: Path, data: memoryview) -> None:
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
        try:
            self._make_room(len(data))
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # a power cut must not leave zeros under a whole file's name
            temporary.replace(path)
        except OSError as error:
            self._refuse(error)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _refuse(self, error: OSError) -> None:
        if not self.refused:
            self.refused = error.strerror or str(error)
            log.warning("weights are not kept in %s (%s); they are fetched each time", self.folder, self.refused)

    def _make_room(self, size: int) -> None:
        """Counts `size` bytes in, after removing the oldest files if they would be too many. OSError on a full disk."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk = os.statvfs(self.folder)
        if disk.f_bavail * disk.f_frsize - size < self.keep_free * disk.f_blocks * disk.f_frsize:
            raise OSError(None, f"the disk would be fuller than {1 - self.keep_free:.0%}")
        with _locked(self.folder / "total.lock", LOCK_WAIT_S):
            total = self.folder / "total"
            try:
                held = int(total.read_text())
            except (OSError, ValueError):
                held = self.limit_bytes  # nobody knows: look
            if held + size > self.limit_bytes:
                held = self._evict(int(self.limit_bytes * EVICTED_TO) - size)
            total.write_text(str(held + size))

    def _evict(self, room: int) -> int:
        """Removes the files that were not read for the longest time until `room` bytes are held. What is left."""
        files = []
        for path in self.folder.glob("*/*-*"):
            with suppress(FileNotFoundError):
                found = path.stat()
                files.append((found.st_mtime, found.st_size, path))
        held = sum(size for _, size, _ in files)
        for changed, size, path in sorted(files):
            is_abandoned = path.name.endswith(TEMPORARY) and time.time() - changed > ABANDONED_S
            if is_abandoned or (held > max(room, 0) and not path.name.endswith(TEMPORARY)):
                path.unlink(missing_ok=True)
                held -= size
                with suppress(OSError):
                    path.parent.rmdir()  # if it was the last one
        return held

    @contextmanager
    def _turn(self, path: Path) -> Iterator[None]:
        """One process at a time for a range. Without locks everybody goes at once: slower, not wrong."""
        number = int.from_bytes(hashlib.sha256(str(path).encode()).digest()[:4], "little") % NUM_LOCKS
        try:
            lock = _locked(self.folder / "locks" / str(number), LOCK_WAIT_S)
            lock.__enter__()
        except OSError as error:
            self._refuse(error)
            yield
            return
        try:
            yield
        finally:
            lock.__exit__(None, None, None)


def object_key(*facts: object) -> str:
    """A name for one version of one object, from all that tells it from others."""
    return hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()[:32]


def _filled(path: Path, buffer: memoryview) -> bool:
    """Whether the file was there and whole; its age begins anew. What cannot be read is as good as not there."""
    try:
        with path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != len(buffer):
                return False
            done = 0
            while done < len(buffer):
                count = file.readinto(buffer[done : done + (1 << 30)])
                if not count:
                    return False
                done += count
            os.utime(file.fileno())
    except OSError:
        return False
    return True


@contextmanager
def _locked(path: Path, wait_s: float) -> Iterator[None]:
    """A lock between processes, free again when its holder ends in whatever way. After `wait_s` nobody waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    break
                time.sleep(LOCK_POLL_S)
        yield
