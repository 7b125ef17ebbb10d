"""What the cells of a manifest name: looked at many at a time before anything starts, and their bytes later.

`access.py` says what may be read, `fetch.py` knows the web; what the bytes are is `images.py`'s and `sounds.py`'s.
"""

import hashlib
import os
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipeline.inputs.access import OWN_FOLDER, InputAccess, LocalFile, StoredObject, WebAddress, absolute, locate, shown
from pipeline.inputs.check import MAX_BYTES, check_bytes
from pipeline.inputs.fetch import fetch
from pipeline.inputs.header import BadInput
from pipeline.store import ObjectChanged, StorageSettings, Store, open_store
from pipeline.types import ImageRef, SoundRef

NUM_READERS = 64  # reading is waiting
NUM_WHOLE = 8  # of them with a whole file in memory
ETAG = "etag"  # how the identity of an object in storage begins, where it was not read whole
Ref = TypeVar("Ref", ImageRef, SoundRef)


class InputReader(ABC, Generic[Ref]):
    """Looks at the images, or the sounds, of a manifest, many at a time.

    Relative addresses are below the first folder; full ones may be below any of them, or wherever `access` allows.
    """

    def __init__(self, folders: Sequence[str], *, storage: StorageSettings, access: InputAccess = OWN_FOLDER) -> None:
        self._access = access.below(*folders)
        self._folder = self._access.roots[0]
        self._places = Places(storage=storage)
        self._whole = threading.Semaphore(NUM_WHOLE)

    def read_all(self, values: Sequence[str | bytes]) -> dict[str | bytes, Ref | BadInput]:
        """What each distinct value (an address or a file's own bytes) is, or why it cannot be used."""
        distinct = list(dict.fromkeys(values))
        with ThreadPoolExecutor(NUM_READERS) as pool:
            return dict(zip(distinct, pool.map(self._read, distinct), strict=True))

    @abstractmethod
    def held(self, data: bytes, *, uri: str | None) -> Ref:
        """Of bytes in memory; without `uri` the manifest holds them itself. BadInput if they cannot be used."""

    def stored(self, store: Store, key: str) -> Ref:
        """Of an object in storage."""
        part = store.get_part(key, 0, MAX_BYTES)
        if part is None:
            raise absent(store.where(key))
        check_bytes(part.size_bytes)
        return self.held(part.data, uri=store.where(key))

    def look_at_object(self, place: StoredObject) -> Ref:
        with self._whole:
            return self.stored(self._places.store(place.root), place.key)

    def _read(self, value: str | bytes) -> Ref | BadInput:
        try:
            if isinstance(value, str):
                return self._look(value)
            with self._whole:
                return self.held(value, uri=None)
        except BadInput as error:
            return BadInput(error.got, error.expected)  # not the raised one: its traceback holds the file's bytes

    def _look(self, address: str) -> Ref:
        full = absolute(address, self._folder)
        place = locate(full, self._access, given=address)
        try:
            if isinstance(place, StoredObject):
                return self.look_at_object(place)
            with self._whole:
                data = read_file(place) if isinstance(place, LocalFile) else fetch(place, self._access)
                return self.held(data, uri=place.path if isinstance(place, LocalFile) else full)
        except BadInput as error:
            if isinstance(place, WebAddress) and error.got.startswith("'"):  # says the address itself
                raise
            raise BadInput(f"{shown(address)}{error.got and f', {error.got}'}", error.expected) from error


@dataclass(frozen=True, kw_only=True)
class Places:
    """Object storage, each root opened once."""

    storage: StorageSettings
    _stores: dict[str, Store] = field(default_factory=dict)

    def store(self, root: str) -> Store:
        return self._stores.setdefault(root, open_store(root, self.storage))


def read_file(place: LocalFile) -> bytes:
    """A regular file of at most 20 MB; links were followed when it was located, and one that is new is refused."""
    try:
        descriptor = os.open(place.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise BadInput("which is no file", "one that is")
            check_bytes(facts.st_size)
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise absent(place.path) from error
    except OSError as error:
        raise BadInput(f"which cannot be read ({error.strerror})", "a file that can be") from error
    check_bytes(len(data))
    return data


def load_bytes(ref: ImageRef | SoundRef, *, storage: StorageSettings, access: InputAccess) -> bytes:
    """The same bytes that were looked at, wherever they are, if the rules allow it.

    BadInput if they cannot be had, ObjectChanged if others are there now.
    """
    if ref.data is not None:
        return ref.data
    assert ref.uri is not None
    place = locate(ref.uri, access)
    if isinstance(place, StoredObject):
        return _load_object(place, ref.identity, storage)
    data = read_file(place) if isinstance(place, LocalFile) else fetch(place, access)
    if sha256(data) != ref.identity:
        raise ObjectChanged(ref.uri)
    return data


def _load_object(place: StoredObject, identity: str, storage: StorageSettings) -> bytes:
    store = open_store(place.root, storage)
    if not identity.startswith(f"{ETAG} "):
        part = store.get_part(place.key, 0, MAX_BYTES)
        if part is None or sha256(part.data) != identity:
            raise ObjectChanged(place.key)
        return part.data
    etag, _, size = identity.removeprefix(f"{ETAG} ").rpartition(" ")
    part = store.get_part(place.key, 0, MAX_BYTES, etag=etag)
    if part is None or str(part.size_bytes) != size:
        raise ObjectChanged(place.key)
    return part.data


def absent(path: str) -> BadInput:
    return BadInput("", f"a file that is there ({path} is not)")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
