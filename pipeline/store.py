"""The one door to storage: a folder on disk, or a bucket (s3://, gs://, az://) through obstore, with the same verbs.

Credentials come from the environment alone (AWS_ACCESS_KEY_ID and the like) and are never held in settings or messages.
An object appears whole or not at all. Retries of transient errors are obstore's, bounded by the settings.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from pipeline import durable
from pipeline.errors import ConfigError, StoreError
from pipeline.redact import address_problem
from pipeline.store_errors import ABSENT, explain, says_absent, translated

SCHEMES = ("s3", "gs", "az")
PART_BYTES = 16 << 20
MAX_PART_BYTES = 230  # file systems hold 255; a temporary name is 17 longer


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """How to reach object storage; no secrets. Local folders ignore all of it."""

    endpoint_url: str | None = None  # None: AWS_ENDPOINT_URL, else Amazon's own. http:// is consent to it
    region: str | None = None  # None: AWS_REGION, else us-east-1
    connect_timeout_s: float = 3.0
    timeout_s: float = 120.0  # of one request, its body included
    retries: int = 6
    retry_timeout_s: float = 15.0  # no retry begins later than this after the first try
    weights_cache: str | None = "~/.cache/happyhorse/weights"  # of each node, for weights in object storage; None: none
    weights_cache_bytes: int = 120_000_000_000  # what was not used for the longest time goes first

    def __post_init__(self) -> None:
        if self.endpoint_url is not None:
            _check_endpoint(self.endpoint_url, "storage.endpoint_url")
        for name in ("connect_timeout_s", "timeout_s", "retry_timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"storage.{name} is {getattr(self, name)}, expected more than 0")
        if self.retries < 0:
            raise ConfigError(f"storage.retries is {self.retries}, expected 0 or more")
        if self.weights_cache_bytes < 0:
            raise ConfigError(f"storage.weights_cache_bytes is {self.weights_cache_bytes}, expected 0 or more")


def open_store(uri: str, settings: StorageSettings | None = None) -> "Store":
    """A store below a local folder (which need not exist) or a bucket's prefix. Touches neither disk nor network."""
    return Store(uri, settings or StorageSettings())


def split_uri(uri: str) -> tuple[str, str]:
    """An address of one object -> (address of its folder, its name), for reading it through `open_store`."""
    scheme, rest = _scheme(uri)
    if scheme is None:
        path = _local_path(uri)
        return str(path.parent), path.name
    folder, _, name = rest.rpartition("/")
    if not folder or not name:
        raise ConfigError(f"{uri} names a bucket, expected an object in it such as {scheme}://bucket/name")
    return f"{scheme}://{folder}", name


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
        scheme, rest = _scheme(self.address)
        bucket, _, prefix = rest.partition("/")
        folder = _local_path(self.address) if scheme is None else None
        prefix = prefix.strip("/") if folder is None else folder.as_posix().strip("/")
        with translated("open", self.address):
            client = LocalStore() if scheme is None else _bucket_client(scheme, bucket, self.settings)
        uri = str(folder) if folder is not None else f"{scheme}://{bucket}/{prefix}".rstrip("/")
        for name, value in (("uri", uri), ("_client", client), ("_prefix", prefix), ("_folder", folder)):
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.uri, self.settings))

    def where(self, key: str) -> str:
        """The full address of a key, for messages and for people."""
        return f"{self.uri}/{key}" if key else self.uri

    def get(self, key: str) -> bytes:
        with translated("read", self.where(key)):
            return bytes(obstore.get(self._client, self._path(key)).bytes())

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` (not included). StoreError if the object ends before `stop`."""
        if start >= stop:
            return b""
        with translated("read", self.where(key)):
            data = bytes(obstore.get_range(self._client, self._path(key), start=start, end=stop))
        if len(data) != stop - start:
            raise StoreError(f"cannot read {self.where(key)}: bytes {start}-{stop} asked for, {len(data)} came")
        return data

    def get_part(self, key: str, start: int, stop: int, *, etag: str | None = None) -> Part | None:
        """What there is between two bytes, and of which object; None if it is not there.

        ObjectChanged if its ETag is not the given one any more.
        """
        wanted: Any = {"range": (start, stop)}
        with translated("read", self.where(key)):
            try:
                found = obstore.get(
                    self._client, self._path(key), options=wanted | ({"if_match": etag} if etag else {})
                )
                meta = found.meta
                if etag is not None and meta["e_tag"] != etag:  # a server that does not know the condition
                    raise PreconditionError("it has another ETag")
                return Part(data=bytes(found.bytes()), size_bytes=meta["size"], etag=meta["e_tag"] or "")
            except PreconditionError as error:
                raise ObjectChanged(f"{self.where(key)} has changed since it was looked at") from error
            except ABSENT as error:
                if says_absent(error):
                    return None
                if self.head(key) == 0:  # no byte of it can be asked for
                    return Part(data=b"", size_bytes=0, etag="")
                raise

    def stream(self, key: str) -> Iterator[bytes]:
        """The object in pieces of at most a few MB, for what should not be held in memory whole."""
        with translated("read", self.where(key)):
            for piece in obstore.get(self._client, self._path(key)).stream(min_chunk_size=1 << 20):
                yield bytes(piece)

    def head(self, key: str) -> int | None:
        """Size in bytes; None if it is not there (a missing bucket looks the same: servers do not tell)."""
        with translated("look at", self.where(key)):
            try:
                return int(obstore.head(self._client, self._path(key))["size"])
            except ABSENT as error:
                if says_absent(error):
                    return None
                raise

    def put(self, key: str, data: bytes, *, create: bool = False) -> bool:
        """Writes the object whole. With `create`: False, and nothing changed, where one is there already.

        False may also be our own earlier try whose answer was lost: whoever cares reads it back and compares.
        """
        with translated("write", self.where(key)):
            if self._folder is not None:
                return durable.write_bytes(self._folder / self._checked(key), data, create=create)
            try:
                path = self._path(key)
                obstore.put(self._client, path, data, mode="create" if create else "overwrite", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def put_file(self, key: str, path: Path) -> None:
        """Uploads a local file piece by piece, then compares sizes."""
        size_bytes = path.stat().st_size
        with translated("write", self.where(key)):
            if self._folder is not None:
                durable.copy_file(path, self._folder / self._checked(key))
            else:
                obstore.put(self._client, self._path(key), path, chunk_size=PART_BYTES, max_concurrency=2)
        arrived = self.head(key)
        if arrived != size_bytes:
            raise StoreError(f"cannot write {self.where(key)}: {size_bytes} bytes sent, {arrived} arrived")

    def write(self, key: str, write: Callable[[BinaryIO], object]) -> None:
        """Puts what `write(file)` writes piece by piece. A bucket gets it whole, from a temporary file."""
        if self._folder is None:
            with tempfile.TemporaryDirectory(prefix="happyhorse-") as folder:
                path = Path(folder) / "object"
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
        with translated("list", self.where(prefix)):
            try:
                for batch in obstore.list(self._client, path or None, chunk_size=1000):
                    for found in batch:
                        yield Entry(found["path"][cut:], found["size"], found["last_modified"])
            except ABSENT as error:
                if not says_absent(error):
                    raise

    def delete(self, key: str) -> None:
        """Removes the object; one that is not there is not an error."""
        with translated("delete", self.where(key)):
            try:
                obstore.delete(self._client, self._path(key))
            except ABSENT as error:
                if not says_absent(error):
                    raise

    def _path(self, key: str) -> str:
        return f"{self._prefix}/{self._checked(key)}" if self._prefix else self._checked(key)

    def _checked(self, key: str) -> str:
        problem = key_problem(key)
        if problem:
            raise StoreError(f"{key!r} cannot be used below {self.uri}: {problem}")
        return key


def _scheme(uri: str) -> tuple[str | None, str]:
    """(scheme of a bucket or None for a local path, what follows `scheme://`)."""
    scheme, found, rest = uri.partition("://")
    if not found or scheme == "file":
        return None, uri
    if scheme not in SCHEMES:
        raise ConfigError(f"{uri}: storage {scheme}:// is not known, expected a local path, s3://, gs:// or az://")
    if not rest.partition("/")[0]:
        raise ConfigError(f"{uri} names no bucket, expected {scheme}://bucket/prefix")
    return scheme, rest


def _local_path(uri: str) -> Path:
    if not uri:
        raise ConfigError("an empty address, expected a local path, s3://, gs:// or az://")
    return Path(os.path.abspath(Path(uri.removeprefix("file://")).expanduser()))


def _check_endpoint(endpoint: str, name: str) -> None:
    """Raises ConfigError; obstore would panic."""
    if address_problem(endpoint):
        raise ConfigError(f"{name}: {address_problem(endpoint)}")
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{name} is {endpoint!r}, expected http://HOST:PORT or https://HOST")


def _bucket_client(scheme: str, bucket: str, settings: StorageSettings) -> S3Store | GCSStore | AzureStore:
    for name in [n for n, value in os.environ.items() if n.startswith("AWS_ENDPOINT_URL") and not value]:
        del os.environ[name]  # set but empty means unset; obstore would panic on it
    endpoint = settings.endpoint_url or os.environ.get("AWS_ENDPOINT_URL", "")
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=settings.connect_timeout_s),
        "timeout": timedelta(seconds=settings.timeout_s),
    }
    retry: dict[str, Any] = {
        "max_retries": settings.retries,
        "retry_timeout": timedelta(seconds=settings.retry_timeout_s),
        "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=4), "base": 2},
    }
    if scheme == "gs":
        return GCSStore(bucket, client_options=client, retry_config=retry)  # type: ignore[arg-type]
    if scheme == "az":
        return AzureStore(bucket, client_options=client, retry_config=retry)  # type: ignore[arg-type]
    if endpoint:
        _check_endpoint(endpoint, "AWS_ENDPOINT_URL")
    if endpoint.startswith("http://"):
        client["allow_http"] = True
    config: dict[str, Any] = {"disable_bulk_delete": True}  # bulk deletes need a header that some servers get wrong
    if settings.endpoint_url:
        config["endpoint"] = settings.endpoint_url
    if settings.region:
        config["region"] = settings.region
    return S3Store(bucket, config=config, client_options=client, retry_config=retry)  # type: ignore[arg-type]
