"""Where a run's weights are: in the package, in a folder or in object storage, behind one `WeightReader`."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from model.weights import LocalWeights, ReadCounts, WeightReader, WeightsMismatch
from pipeline.errors import StoreError, WeightsError
from pipeline.store import StorageSettings, Store, StoredObject, open_store
from pipeline.weight_cache import RangeCache, object_key

BUILTIN = "builtin"
PART_BYTES = 8 << 20  # of a large range, by one connection
NUM_CONNECTIONS = 4


class StoreWeights:
    """A `WeightReader` over a bucket's prefix: ranged GETs, several at once where a range is large.

    The root is listed once; an object that changes afterwards is an error, not a mixture.
    """

    def __init__(self, store: Store, cache: RangeCache | None = None) -> None:
        self.store = store
        self.cache = cache
        self.counts = ReadCounts()

    @cached_property
    def _objects(self) -> dict[str, StoredObject]:
        return {stored.key: stored for stored in self.store.list_versions()}

    def names(self) -> list[str]:
        return sorted(self._objects)

    def size_bytes(self, name: str) -> int:
        return self._object(name).size_bytes

    def read_into(self, name: str, start: int, buffer: memoryview) -> None:
        stored = self._object(name)
        if start + len(buffer) > stored.size_bytes:
            raise WeightsMismatch(
                f"{name} ends at byte {stored.size_bytes}, expected {start + len(buffer)}: the file is truncated"
            )
        self.counts.requested[name] += len(buffer)
        if self.cache is None:
            self._fetch(stored, start, buffer)
            return
        version = (stored.size_bytes, stored.tag or stored.changed)
        key = object_key(self.store.settings.endpoint_url or _endpoint(), self.store.where(name), *version)
        self.cache.read(key, start, buffer, lambda: self._fetch(stored, start, buffer))

    def read(self, name: str, start: int, stop: int) -> bytes:
        data = bytearray(stop - start)
        self.read_into(name, start, memoryview(data))
        return bytes(data)

    def _object(self, name: str) -> StoredObject:
        if name not in self._objects:
            raise StoreError(f"cannot read {self.store.where(name)}: there is no such object")
        return self._objects[name]

    def _fetch(self, stored: StoredObject, start: int, buffer: memoryview) -> None:
        offsets = range(0, len(buffer), PART_BYTES)

        def fetch_part(at: int) -> None:
            stop = min(at + PART_BYTES, len(buffer))
            buffer[at:stop] = self.store.get_range(stored.key, start + at, start + stop, tag=stored.tag)

        if len(offsets) > 1:
            with ThreadPoolExecutor(NUM_CONNECTIONS) as pool:
                list(pool.map(fetch_part, offsets))
        elif offsets:
            fetch_part(0)
        self.counts.fetched[stored.key] += len(buffer)


def open_weights(weights: str, storage: StorageSettings) -> WeightReader:
    """`builtin`, a folder or an address. WeightsError if a folder is not there; an address is not looked at yet."""
    if weights != BUILTIN and "://" in weights:
        cache = None
        if storage.weights_cache is not None:
            folder = Path(storage.weights_cache).expanduser().absolute()
            cache = RangeCache(folder, limit_bytes=storage.weights_cache_bytes)
        return StoreWeights(open_store(weights, storage), cache)
    folder = Path(str(files("model.foal") / "weights")) if weights == BUILTIN else Path(weights).expanduser()
    if not folder.is_dir():
        raise WeightsError(f"weights: {folder} is not there, expected a folder with base/, codec/ and text/")
    return LocalWeights(folder)


@contextmanager
def weights_errors(weights: str) -> Iterator[None]:
    """What a loader raises for files that do not fit or cannot be read, as a WeightsError."""
    try:
        yield
    except (WeightsMismatch, OSError) as error:
        raise WeightsError(f"weights {weights}: {error}") from error


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL", "")
