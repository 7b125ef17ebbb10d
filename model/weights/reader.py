"""Files below a weights root, read by explicit ranges and counted. Knows neither their format nor object storage."""

import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

COPY_BYTES = 16 << 20


class WeightsMismatch(ValueError):
    """The files are not those the model's config asks for; the message says which tensors and how.

    The message names the first few of a kind; `findings` has a line for each.
    """

    def __init__(self, message: str, *, findings: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings or (message,)


@dataclass(frozen=True)
class ReadCounts:
    """Bytes by file: asked of a reader, and fetched from where the weights are (fewer where a cache had them)."""

    requested: Counter[str] = field(default_factory=Counter)
    fetched: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, name: str, *, requested: int = 0, fetched: int = 0) -> None:
        with self._lock:  # tensors are read side by side
            self.requested[name] += requested
            self.fetched[name] += fetched


class WeightReader(Protocol):
    """Files below a weights root, read by ranges."""

    @property
    def counts(self) -> ReadCounts: ...

    def names(self) -> list[str]: ...

    def size_bytes(self, name: str, /) -> int: ...

    def read_into(self, name: str, start: int, buffer: memoryview, /) -> None:
        """Fills all of `buffer` from byte `start` on. WeightsMismatch if the file ends before."""

    def read(self, name: str, start: int, stop: int, /) -> bytes: ...


class LocalWeights:
    """A `WeightReader` over a folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.counts = ReadCounts()

    def names(self) -> list[str]:
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())

    def size_bytes(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def read_into(self, name: str, start: int, buffer: memoryview) -> None:
        self.counts.add(name, requested=len(buffer), fetched=len(buffer))
        fill_from_file(self.root / name, start, buffer, name=name)

    def read(self, name: str, start: int, stop: int) -> bytes:
        data = bytearray(stop - start)
        self.read_into(name, start, memoryview(data))
        return bytes(data)


def fill_from_file(path: Path, start: int, buffer: memoryview, *, name: str) -> None:
    """Positional reads straight into `buffer`. WeightsMismatch, under `name`, if the file ends before it is full."""
    with path.open("rb", buffering=0) as file:
        done = 0
        while done < len(buffer):
            count = os.preadv(file.fileno(), [buffer[done : done + (1 << 30)]], start + done)
            if not count:
                raise WeightsMismatch(
                    f"{name} ends at byte {start + done}, expected {start + len(buffer)}: the file is truncated"
                )
            done += count


@contextmanager
def local_copy(reader: WeightReader, name: str) -> Iterator[Path]:
    """The file as one on this machine, for libraries that want a path: itself, or a copy that is gone afterwards."""
    if isinstance(reader, LocalWeights):
        yield reader.root / name
        return
    with tempfile.TemporaryDirectory(prefix="happyhorse-") as folder:
        path = Path(folder) / Path(name).name
        with path.open("wb") as file:
            for piece in pieces(reader, name):
                file.write(piece)
        yield path


def pieces(reader: WeightReader, name: str) -> Iterator[bytes]:
    """The whole file, a few MB at a time."""
    size = reader.size_bytes(name)
    for start in range(0, size, COPY_BYTES):
        yield reader.read(name, start, min(start + COPY_BYTES, size))
