"""A store in memory with a clock of its own: create-only as good or bad as told, answers that get lost, late writes."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

from pipeline.errors import StoreError
from pipeline.store import Entry, Part, StorageSettings, Store
from tests.interleaving import Killed, pause

Kind = TypeVar("Kind")
Create = Literal["atomic", "racy", "ignored"]
Trouble = Literal[
    "refused",  # not written
    "lost",  # written, and the answer is an error
    "repeated",  # written, the answer lost and the request sent again: "exists already"
]


@dataclass(frozen=True)
class Late:
    """A write under way when its process was killed: it may still arrive."""

    key: str
    data: bytes
    create: bool


class MemoryStore(Store):
    """Every call pauses before it has an effect and before it answers."""

    def __init__(self, *, create: Create = "atomic", clock: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__("/memory", StorageSettings())
        self.create: Create = create
        self.clock = clock
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.troubles: dict[str, Trouble] = {}  # folder -> what the next write below it meets
        self.late: list[Late] = []
        self.asked: Callable[[str], None] = lambda key: None  # is told when a write is asked for ...
        self.written: Callable[[str], None] = lambda key: None  # ... and when it has its effect, perhaps much later

    def get(self, key: str) -> bytes:
        return self._answer(self._found(key)[0])

    def get_part(self, key: str, start: int, stop: int, *, etag: str | None = None) -> Part | None:
        pause()
        data, _ = self.objects.get(key, (None, None))
        return self._answer(None if data is None else Part(data=data[start:stop], size_bytes=len(data), etag=""))

    def stream(self, key: str) -> Iterator[bytes]:
        yield self.get(key)

    def head(self, key: str) -> int | None:
        pause()
        return self._answer(len(self.objects[key][0]) if key in self.objects else None)

    def put(self, key: str, data: bytes, *, create: bool = False) -> bool:
        self.asked(key)
        try:
            pause(at=key)
        except Killed:
            self.late.append(Late(key, data, create))
            raise
        trouble = self.troubles.pop(key.split("/")[0], None)
        if trouble == "refused":
            raise StoreError(f"cannot write {self.where(key)}: storage is failing")
        written = self._write(key, data, create=create)
        if trouble == "lost":
            raise StoreError(f"cannot write {self.where(key)}: storage did not answer in time")
        return self._answer(written and not (create and trouble == "repeated" and self.create != "ignored"))

    def put_file(self, key: str, path: Path, **options: object) -> None:
        self.put(key, path.read_bytes())

    def write(self, key: str, write: Callable[[BinaryIO], object]) -> None:
        buffer = io.BytesIO()
        write(buffer)
        self.put(key, buffer.getvalue())

    def list(self, prefix: str = "") -> Iterator[Entry]:
        pause()
        start = f"{prefix}/" if prefix else ""
        found = [Entry(key, len(data), at) for key, (data, at) in self.objects.items() if key.startswith(start)]
        yield from self._answer(found)

    def delete(self, key: str) -> None:
        pause()
        self.objects.pop(key, None)
        pause()

    def land(self, late: Late) -> None:
        """A write of a dead process arrives."""
        self.late.remove(late)
        self._write(late.key, late.data, create=late.create)

    def _write(self, key: str, data: bytes, *, create: bool) -> bool:
        if create and self.create != "ignored":
            exists = key in self.objects
            if self.create == "racy":
                pause()  # the server itself looks first and writes later
            if exists:
                return False
        at = datetime.fromtimestamp(int(self.clock()), UTC)  # many stores tell seconds apart, not less
        self.objects[key] = (data, at)
        self.written(key)
        return True

    def _found(self, key: str) -> tuple[bytes, datetime]:
        pause()
        if key not in self.objects:
            raise StoreError(f"cannot read {self.where(key)}: there is no such object")
        return self.objects[key]

    def _answer(self, value: Kind) -> Kind:
        pause()
        return value
