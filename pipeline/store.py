"""The one door to storage: a folder on disk, or a bucket (s3://, gs://, az://) through obstore, with the same verbs.

An object appears whole or not at all. Every request to a bucket has a deadline, and errors that pass are tried again,
within bounds (`store_retries.py`). A call to a folder lasts as long as the file system takes: nothing can interrupt it.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import LocalStore

from pipeline import durable
from pipeline.errors import StoreError
from pipeline.scratch import temporary_folder
from pipeline.store_clients import StorageSettings, bucket_client, local_path, scheme_of, split_uri
from pipeline.store_errors import ABSENT, explain, says_absent, translated
from pipeline.store_retries import Patience, is_transient, patiently

__all__ = ["Entry", "ObjectChanged", "Part", "StorageSettings", "Store", "key_problem", "open_store", "split_uri"]

PART_BYTES = 16 << 20
LIST_CHUNK = 1000
MAX_PART_BYTES = 230  # file systems hold 255; a temporary name is 17 longer
Made = TypeVar("Made")


def open_store(uri: str, settings: StorageSettings | None = None) -> "Store":
    """A store below a local folder (which need not exist) or a bucket's prefix. Touches neither disk nor network."""
    return Store(uri, settings or StorageSettings())


def key_problem(key: str) -> str | None:
    """Why a relative path cannot be a key, the same for disks and buckets; None if it can."""
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "it has empty parts, `.` or `..`"
    if any(len(part.encode(errors="replace")) > MAX_PART_BYTES for part in parts):
        return f"a part of it is longer than {MAX_PART_BYTES} bytes"
    if any(ord(sign) < 32 or ord(sign) == 127 or "\ud800" <= sign <= "\udfff" for sign in key):
        return "it holds control characters"
    if durable.TEMPORARY.search(parts[-1]):
        return "its end, # and digits, is the mark of unfinished files"
    return None


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some bytes of an object, and what was said of it with them: its whole size, and the mark of its content."""

    data: bytes
    size_bytes: int
    etag: str


class Entry(NamedTuple):
    """What a listing says of one object."""

    key: str
    size_bytes: int
    modified_at: datetime  # by the store's own clock


class ObjectChanged(StoreError):
    """An object is not what it was any more."""


@dataclass(frozen=True)
class Store:
    """Objects below one address. Keys are relative, with `/` between their parts. Pickles as address and settings."""

    address: str
    settings: StorageSettings
    uri: str = field(init=False)  # the address made absolute, without a slash at its end
    _client: Any = field(init=False, repr=False, compare=False)
    _prefix: str = field(init=False, repr=False, compare=False)  # of keys below the client's root
    _folder: Path | None = field(init=False, repr=False, compare=False)  # None: a bucket

    def __post_init__(self) -> None:
        scheme, rest = scheme_of(self.address)
        bucket, _, prefix = rest.partition("/")
        folder = local_path(self.address) if scheme is None else None
        prefix = prefix.strip("/") if folder is None else folder.as_posix().strip("/")
        with translated("open", self.address):
            client = LocalStore() if scheme is None else bucket_client(scheme, bucket, self.settings)
        uri = str(folder) if folder is not None else f"{scheme}://{bucket}/{prefix}".rstrip("/")
        for name, value in (("uri", uri), ("_client", client), ("_prefix", prefix), ("_folder", folder)):
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.uri, self.settings))

    @property
    def is_folder(self) -> bool:
        """On disk, and not a bucket."""
        return self._folder is not None

    def where(self, key: str) -> str:
        """The full address of a key, for messages and for people."""
        return f"{self.uri}/{key}" if key else self.uri

    def get(self, key: str) -> bytes:
        return self._do("read", key, lambda path: bytes(obstore.get(self._client, path).bytes()))

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` (not included). StoreError if the object ends before `stop`."""
        if start >= stop:
            return b""
        read = self._do("read", key, lambda path: obstore.get_range(self._client, path, start=start, end=stop))
        data = bytes(read)
        if len(data) != stop - start:
            raise StoreError(f"cannot read {self.where(key)}: bytes {start}-{stop} asked for, {len(data)} came")
        return data

    def get_part(self, key: str, start: int, stop: int, *, etag: str | None = None) -> Part | None:
        """What there is between two bytes, and of which object; None if it is not there.

        ObjectChanged if its ETag is not the given one any more.
        """
        options: Any = {"range": (start, stop)} | ({"if_match": etag} if etag else {})

        def read(path: str) -> Part | None:
            try:
                found = obstore.get(self._client, path, options=options)
                meta = found.meta
                if etag is not None and meta["e_tag"] != etag:  # a server that does not know the condition
                    raise PreconditionError("it has another ETag")
                return Part(data=bytes(found.bytes()), size_bytes=meta["size"], etag=meta["e_tag"] or "")
            except PreconditionError as error:
                raise ObjectChanged(f"{self.where(key)} has changed since it was looked at") from error
            except ABSENT as error:
                if says_absent(error):
                    return None
                if not is_transient(error) and self.head(key) == 0:  # no byte of it can be asked for
                    return Part(data=b"", size_bytes=0, etag="")
                raise

        return self._do("read", key, read)

    def stream(self, key: str) -> Iterator[bytes]:
        """The object in pieces of at most a few MB, for what should not be held in memory whole."""
        found = self._do("read", key, lambda path: obstore.get(self._client, path))
        with translated("read", self.where(key)):
            for piece in found.stream(min_chunk_size=1 << 20):
                yield bytes(piece)

    def digest(self, key: str) -> str:
        """SHA-256 of the whole object in hex, read piece by piece."""
        digest = hashlib.sha256()
        for piece in self.stream(key):
            digest.update(piece)
        return digest.hexdigest()

    def head(self, key: str) -> int | None:
        """Size in bytes; None if it is not there (a missing bucket looks the same: servers do not tell)."""

        def look(path: str) -> int | None:
            try:
                return int(obstore.head(self._client, path)["size"])
            except ABSENT as error:
                if says_absent(error):
                    return None
                raise

        return self._do("look at", key, look)

    def put(self, key: str, data: bytes, *, create: bool = False) -> bool:
        """Writes the object whole. With `create`: False, and nothing changed, where one is there already.

        False may also be our own earlier try whose answer was lost: whoever cares reads it back and compares.
        """

        def write(path: str) -> bool:
            if self._folder is not None:
                return durable.write_bytes(self._folder / key, data, create=create)
            try:
                obstore.put(self._client, path, data, mode="create" if create else "overwrite", use_multipart=False)
            except AlreadyExistsError as error:  # the class of all 409, also of what passes
                if not create or is_transient(error):
                    raise
                return False
            return True

        return self._do("write", key, write)

    def put_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        """Uploads a local file piece by piece, then compares sizes, and with `sha256` what can be read of it."""
        size_bytes = path.stat().st_size

        def write(target: str) -> None:
            if self._folder is not None:
                durable.copy_file(path, self._folder / key)
            else:
                obstore.put(self._client, target, path, chunk_size=PART_BYTES, max_concurrency=2)

        self._do("write", key, write)
        arrived = self.head(key)
        if arrived != size_bytes:
            raise StoreError(f"cannot write {self.where(key)}: {size_bytes} bytes sent, {arrived} arrived")
        if sha256 is not None and self.settings.verify_uploads and self.digest(key) != sha256:
            raise StoreError(f"cannot write {self.where(key)}: what arrived has another SHA-256 than what was sent")

    def write(self, key: str, write: Callable[[BinaryIO], object]) -> None:
        """Puts what `write(file)` writes piece by piece. A bucket gets it whole, from a temporary file."""
        if self._folder is None:
            with temporary_folder() as folder:
                path = folder / "object"
                with path.open("wb") as file:
                    write(file)
                self.put_file(key, path)
            return
        try:
            durable.write_file(self._folder / self._checked(key), write, create=False)
        except OSError as error:
            raise StoreError(f"cannot write {self.where(key)}: {explain(error)}") from error

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Everything below a folder-like prefix, in no order; nothing where there is no such folder."""
        path = self._path(prefix) if prefix else self._prefix
        cut = len(self._prefix) + 1 if self._prefix else 0
        patience, last, failed_after = Patience(self.settings), None, None
        with translated("list", self.where(prefix)):
            while True:
                try:
                    for batch in obstore.list(self._client, path or None, offset=last, chunk_size=LIST_CHUNK):
                        for found in batch:
                            last = found["path"]
                            if last != path:  # consoles of buckets mark a folder with an empty object of its name
                                yield Entry(last[cut:], found["size"], found["last_modified"])
                    return
                except ABSENT as error:
                    if says_absent(error):
                        return
                    if last != failed_after:  # it has come further since: nothing is wrong for long
                        patience, failed_after = Patience(self.settings), last
                    patience.spend(error)

    def delete(self, key: str) -> None:
        """Removes the object; one that is not there is not an error."""

        def remove(path: str) -> None:
            try:
                obstore.delete(self._client, path)
            except ABSENT as error:
                if not says_absent(error):
                    raise

        self._do("delete", key, remove)

    def _do(self, verb: str, key: str, act: Callable[[str], Made]) -> Made:
        """`act(path below the client's root)`, tried again after errors that pass; StoreError after all others."""
        path = self._path(key)
        with translated(verb, self.where(key)):
            return patiently(lambda: act(path), self.settings)

    def _path(self, key: str) -> str:
        return f"{self._prefix}/{self._checked(key)}" if self._prefix else self._checked(key)

    def _checked(self, key: str) -> str:
        problem = key_problem(key)
        if problem:
            raise StoreError(f"{key!r} cannot be used below {self.uri}: {problem}")
        return key
