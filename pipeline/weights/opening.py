"""Where a run's weights are: in the package, in a folder or in object storage, behind one `WeightReader`."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from model.weights import LocalWeights, ReadCounts, WeightReader, WeightsMismatch
from pipeline.errors import StoreError, WeightsError
from pipeline.store import ObjectChanged, Part, StorageSettings, Store, open_store
from pipeline.weights.cache import RangeCache, object_key

BUILTIN = "builtin"
PART_BYTES = 8 << 20  # of a large range, by one connection
NUM_CONNECTIONS = 4


class StoreWeights:
    """A `WeightReader` over a bucket's prefix: ranged GETs, several at once where a range is large.

    The root is listed once, and all ranges of an object are of the version that was there first, or an error.
    """

    def __init__(self, store: Store, cache: RangeCache | None = None) -> None:
        self.store = store
        self.cache = cache
        self.counts = ReadCounts()
        self._etags: dict[str, str] = {}

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {each.key: each.size_bytes for each in self.store.list()}

    def names(self) -> list[str]:
        return sorted(self._sizes)

    def size_bytes(self, name: str) -> int:
        if name not in self._sizes:
            raise StoreError(f"cannot read {self.store.where(name)}: there is no such object")
        return self._sizes[name]

    def read_into(self, name: str, start: int, buffer: memoryview) -> None:
        size, stop = self.size_bytes(name), start + len(buffer)
        if stop > size:
            raise WeightsMismatch(f"{name} ends at byte {size}, expected {stop}: the file is truncated")
        self.counts.add(name, requested=len(buffer))
        etag = self._etag(name)
        if self.cache is None or not etag:
            self._fetch(name, start, buffer)
            return
        endpoint = self.store.settings.endpoint_url or os.environ.get("AWS_ENDPOINT_URL", "")
        key = object_key(endpoint, self.store.where(name), size, etag)
        self.cache.read(key, start, buffer, lambda: self._fetch(name, start, buffer))

    def read(self, name: str, start: int, stop: int) -> bytes:
        data = bytearray(stop - start)
        self.read_into(name, start, memoryview(data))
        return bytes(data)

    def _etag(self, name: str) -> str:
        """As the server gives it with bytes: in a listing some servers write it in another way."""
        if name not in self._etags:
            self._etags[name] = self._part(name, 0, min(1, self.size_bytes(name)), etag=None).etag
        return self._etags[name]

    def _fetch(self, name: str, start: int, buffer: memoryview) -> None:
        etag = self._etag(name) or None

        def fetch_part(at: int) -> None:
            stop = min(at + PART_BYTES, len(buffer))
            buffer[at:stop] = self._part(name, start + at, start + stop, etag=etag).data

        offsets = range(0, len(buffer), PART_BYTES)
        if len(offsets) > 1:
            with ThreadPoolExecutor(NUM_CONNECTIONS) as pool:
                list(pool.map(fetch_part, offsets))
        elif offsets:
            fetch_part(0)
        self.counts.add(name, fetched=len(buffer))

    def _part(self, name: str, start: int, stop: int, *, etag: str | None) -> Part:
        part = self.store.get_part(name, start, stop, etag=etag)
        if part is None or part.size_bytes != self.size_bytes(name) or len(part.data) != stop - start:
            raise ObjectChanged(f"{self.store.where(name)} has changed since it was looked at")
        return part


def open_weights(weights: str, storage: StorageSettings, *, parts: Iterable[str] = ()) -> WeightReader:
    """`builtin`, a folder or an address. WeightsError if a folder is not there; an address is not looked at yet.

    `parts` of the model, where it is known: they are named in the message.
    """
    weights = weights.removeprefix("file://")
    if weights != BUILTIN and "://" in weights:
        cache = None
        if storage.weights_cache is not None:
            folder = Path(storage.weights_cache).expanduser().absolute()
            cache = RangeCache(folder, limit_bytes=storage.weights_cache_bytes)
        return StoreWeights(open_store(weights, storage), cache)
    folder = Path(str(files("model.foal") / "weights")) if weights == BUILTIN else Path(weights).expanduser()
    parts = tuple(parts)
    holding = f" with {', '.join(f'{part}/' for part in parts)}" if parts else ""
    if not folder.is_dir():
        raise WeightsError(f"weights: {folder} is not there, expected a folder of weights{holding}")
    if weights == BUILTIN and not all((folder / part).is_dir() for part in parts):
        raise WeightsError("weights: builtin holds the foal's weights; give weights=PLACE")
    return LocalWeights(folder)


@contextmanager
def weights_errors(weights: str) -> Iterator[None]:
    """What a loader raises for files that do not fit or cannot be read, as a WeightsError."""
    try:
        yield
    except (WeightsMismatch, OSError) as error:
        raise WeightsError(f"weights {weights}: {error}") from error
