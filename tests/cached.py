"""Ranges that can be fetched and counted, by other processes too: so this file imports little."""

import os
import signal
import time
from pathlib import Path

from pipeline.weights.cache import SMALLEST_BYTES, RangeCache, object_key

SIZE = SMALLEST_BYTES
KEY = object_key("an object", SIZE)


class Source:
    """Bytes that say where they are from, and a file with a line for each fetch, by whatever process."""

    def __init__(self, log: Path, *, seconds: float = 0.0) -> None:
        self.log, self.seconds = log, seconds

    def read(self, cache: RangeCache, start: int, *, key: str = KEY) -> bool:
        buffer = bytearray(SIZE)
        was_there = cache.read(key, start, memoryview(buffer), lambda: self._fetch(start, buffer))
        assert bytes(buffer) == content(start)
        return was_there

    def _fetch(self, start: int, buffer: bytearray) -> None:
        with self.log.open("a") as file:
            file.write(f"{start}\n")
        time.sleep(self.seconds)
        buffer[:] = content(start)

    def fetched(self) -> list[int]:
        return sorted(map(int, self.log.read_text().split())) if self.log.exists() else []


def content(start: int) -> bytes:
    return (b"%d " % start * SIZE)[:SIZE]


def roomy(folder: Path) -> RangeCache:
    return RangeCache(folder, limit_bytes=100 * SIZE)


def read_all(folder: Path, log: Path, starts: list[int]) -> None:
    source = Source(log, seconds=0.05)
    for start in starts:
        source.read(roomy(folder), start)


def die_while_fetching(folder: Path) -> None:
    buffer = bytearray(SIZE)
    roomy(folder).read(KEY, 0, memoryview(buffer), lambda: os.kill(os.getpid(), signal.SIGKILL))
