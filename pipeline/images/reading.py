"""First frames: what a manifest's image cells are, looked at without decoding them, and their bytes later.

`access.py` says what may be read, `check.py` what can be a first frame, `fetch.py` knows the web. Scaling
and cropping to a clip's size are `model.images`'s.
"""

import hashlib
import os
import stat
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pipeline.errors import ClipError
from pipeline.images.access import OWN_FOLDER, ImageAccess, LocalFile, StoredObject, WebAddress, absolute, locate, shown
from pipeline.images.check import MAX_BYTES, check_bytes, check_image, check_opens
from pipeline.images.fetch import fetch
from pipeline.images.header import BadImage, Whole
from pipeline.redact import redacted
from pipeline.store import ObjectChanged, Part, StorageSettings, Store, open_store
from pipeline.types import ImageRef

__all__ = ["BadImage", "ImageReader", "inline_image", "load_image"]

NUM_READERS = 64  # reading is waiting
NUM_WHOLE = 8  # of them with a whole image in memory
HEAD_BYTES = 1 << 16
MAX_WINDOW_BYTES = 1 << 20
ETAG = "etag"  # how the identity of an object in storage begins


class ImageReader:
    """Looks at the images of a manifest, many at a time.

    Relative addresses are below the first folder; full ones may be below any of them, or wherever `access` allows.
    """

    def __init__(self, folders: Sequence[str], *, storage: StorageSettings, access: ImageAccess = OWN_FOLDER) -> None:
        self._access = access.below(*folders)
        self._folder = self._access.roots[0]
        self._places = Places(storage=storage)
        self._whole = threading.Semaphore(NUM_WHOLE)

    def read_all(self, values: Sequence[str | bytes]) -> dict[str | bytes, ImageRef | BadImage]:
        """What each distinct value (an address or an image's own bytes) is, or why it cannot be used."""
        distinct = list(dict.fromkeys(values))
        with ThreadPoolExecutor(NUM_READERS) as pool:
            return dict(zip(distinct, pool.map(self._read, distinct), strict=True))

    def _read(self, value: str | bytes) -> ImageRef | BadImage:
        try:
            return inline_image(value) if isinstance(value, bytes) else self._look(value)
        except BadImage as error:
            return BadImage(error.got, error.expected)  # not the raised one: its traceback holds the image's bytes

    def _look(self, address: str) -> ImageRef:
        full = absolute(address, self._folder)
        place = locate(full, self._access, given=address)
        try:
            if isinstance(place, StoredObject):
                return self._places.look(place)
            with self._whole:
                data = read_file(place) if isinstance(place, LocalFile) else fetch(place, self._access)
                uri = place.path if isinstance(place, LocalFile) else full
                return _ref(data, uri=uri)
        except BadImage as error:
            if isinstance(place, WebAddress) and error.got.startswith("'"):  # says the address itself
                raise
            raise BadImage(f"{shown(address)}{error.got and f', {error.got}'}", error.expected) from error


@dataclass(frozen=True, kw_only=True)
class Places:
    """Object storage, each root opened once."""

    storage: StorageSettings
    _stores: dict[str, Store] = field(default_factory=dict)

    def store(self, root: str) -> Store:
        return self._stores.setdefault(root, open_store(root, self.storage))

    def look(self, place: StoredObject) -> ImageRef:
        """From its first and last bytes, and more only where the header is longer."""
        store = self.store(place.root)
        part = store.get_part(place.key, 0, HEAD_BYTES)
        if part is None:
            raise _absent(store.where(place.key))
        check_bytes(part.size_bytes)
        whole = len(part.data) == part.size_bytes
        try:
            height, width = check_image(Whole(part.data) if whole else _Ranged(store, place.key, part))
        except ObjectChanged as error:
            raise BadImage("which changes while it is looked at", "one that stays as it is") from error
        identity = f"{ETAG} {part.etag} {part.size_bytes}"
        return ImageRef(uri=store.where(place.key), data=None, identity=identity, height=height, width=width)


class _Ranged:
    """An object's bytes by growing windows, of which one is held at a time."""

    def __init__(self, store: Store, key: str, head: Part) -> None:
        self.size_bytes = head.size_bytes
        self._store, self._key, self._head = store, key, head
        self._start, self._window = 0, b""

    def read(self, start: int, stop: int, /) -> bytes:
        stop = min(stop, self.size_bytes)
        if start >= stop:
            return b""
        if stop <= len(self._head.data):
            return self._head.data[start:stop]
        if not self._start <= start <= stop <= self._start + len(self._window):
            ahead = min(MAX_WINDOW_BYTES, 2 * len(self._window) or HEAD_BYTES)
            part = self._store.get_part(self._key, start, max(stop, start + ahead), etag=self._head.etag)
            self._start, self._window = start, part.data if part else b""
        return self._window[start - self._start : stop - self._start]


def inline_image(data: bytes) -> ImageRef:
    """An image that the manifest holds itself. BadImage if it cannot be used."""
    return _ref(data, uri=None)


def read_file(place: LocalFile) -> bytes:
    """A regular file of at most 20 MB; links were followed when it was located, and one that is new is refused."""
    try:
        descriptor = os.open(place.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise BadImage("which is no file", "an image")
            check_bytes(facts.st_size)
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _absent(place.path) from error
    except OSError as error:
        raise BadImage(f"which cannot be read ({error.strerror})", "a file that can be") from error
    check_bytes(len(data))
    return data


def load_image(ref: ImageRef, *, storage: StorageSettings, access: ImageAccess) -> bytes:
    """The bytes of a clip's image, wherever they are, if the rules allow it.

    ClipError if they cannot be had or used, or have changed since the manifest was read.
    """
    name = "the image" if ref.uri is None else redacted(ref.uri)
    try:
        data = ref.data if ref.data is not None else _load(ref, storage, access)
        height, width = check_image(Whole(data))
        if (height, width) != (ref.height, ref.width):
            raise ObjectChanged(name)
        check_opens(data, height=height, width=width)
        return data
    except BadImage as error:
        raise ClipError(f"{name} cannot be used: {error}") from error
    except ObjectChanged as error:
        raise ClipError(f"{name} has changed since the manifest was read") from error


def _load(ref: ImageRef, storage: StorageSettings, access: ImageAccess) -> bytes:
    assert ref.uri is not None
    place = locate(ref.uri, access)
    if isinstance(place, StoredObject):
        etag, _, size = ref.identity.removeprefix(f"{ETAG} ").rpartition(" ")
        part = open_store(place.root, storage).get_part(place.key, 0, MAX_BYTES, etag=etag)
        if part is None or str(part.size_bytes) != size:
            raise ObjectChanged(ref.uri)
        return part.data
    data = read_file(place) if isinstance(place, LocalFile) else fetch(place, access)
    if _sha256(data) != ref.identity:
        raise ObjectChanged(ref.uri)
    return data


def _ref(data: bytes, *, uri: str | None) -> ImageRef:
    height, width = check_image(Whole(data))
    return ImageRef(uri=uri, data=None if uri is not None else data, identity=_sha256(data), height=height, width=width)


def _absent(path: str) -> BadImage:
    return BadImage("", f"a file that is there ({path} is not)")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
