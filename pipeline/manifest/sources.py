"""Where a manifest's files are: a file, a folder, a glob, a hive-partitioned folder, or several with commas between.

Nothing is opened here. An address that exists as it is written wins: commas and glob signs may stand in file names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote

from pipeline.errors import Finding, ManifestError
from pipeline.store import StorageSettings, Store, open_store, split_uri
from pipeline.store_clients import absolute

PARQUET = ".parquet"
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
SIGNS = "*?["


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    store: Store
    key: str
    alone: bool  # named by itself, not found in a folder
    partitions: Mapping[str, str | None] = field(default_factory=dict)  # from folders such as day=2026-11-21

    @property
    def where(self) -> str:
        return self.store.where(self.key)

    @property
    def folder(self) -> str:
        """Where relative image addresses begin."""
        return self.store.uri


def find_files(uri: str, *, storage: StorageSettings) -> list[FoundFile]:
    """The files that an address names, in order of their names; ManifestError if there are none."""
    found = list(_find(uri, storage))
    if found:
        return found
    addresses = [address.strip() for address in uri.split(",")]
    if len(addresses) > 1 and all(addresses):
        return [each for address in addresses for each in find_files(address, storage=storage)]
    reason = "no such file, and no folder with *.parquet files"
    raise ManifestError(uri, [Finding(-1, "", reason, "a Parquet file, a folder of them or a glob")])


def from_anywhere(uri: str, *, storage: StorageSettings) -> str:
    """The address under which whoever stands in another folder finds the same files."""
    if "," in uri and not any(_find(uri, storage)):
        return ",".join(from_anywhere(each.strip(), storage=storage) for each in uri.split(","))
    return absolute(uri)


def file_marks(uri: str, *, storage: StorageSettings) -> list[str]:
    """A word for each file, another one when the file is written again."""
    marks = []
    for file in find_files(uri, storage=storage):
        part = file.store.get_part(file.key, 0, 1)
        marks.append(f"{file.where} {part.size_bytes} {part.etag}" if part else file.where)
    return marks


def _find(uri: str, storage: StorageSettings) -> Iterator[FoundFile]:
    check_kind(uri)
    root, name = split_uri(uri.rstrip("/"))
    store = open_store(root, storage)
    if store.head(name) is not None:
        yield FoundFile(store=store, key=name, alone=True)
        return
    folder, pattern = _split_glob(uri.rstrip("/"))
    store = open_store(folder, storage)
    for key in sorted(each.key for each in store.list() if _is_part(each.key, pattern)):
        yield FoundFile(store=store, key=key, alone=False, partitions=_partitions(key))


def check_kind(uri: str) -> None:
    """ManifestError for a pipe, a device and the like, which may never end."""
    path = Path(uri.removeprefix("file://")).expanduser()
    if "://" not in uri.removeprefix("file://") and path.exists() and not (path.is_file() or path.is_dir()):
        raise ManifestError(uri, [Finding(-1, "", "neither a file nor a folder", "one of them")])


def _split_glob(uri: str) -> tuple[str, list[str]]:
    """The folder in front of the first part with a glob's sign, and the parts from there on (none: a whole folder)."""
    parts = uri.split("/")
    first = next((n for n, part in enumerate(parts) if any(sign in part for sign in SIGNS)), len(parts))
    folder = "/".join(parts[:first])
    return folder or ("/" if uri.startswith("/") else "."), parts[first:]


def _is_part(key: str, pattern: list[str]) -> bool:
    """Whether a glob names the file or a folder above it. In folders hidden files are left out."""
    parts = key.split("/")
    if not all(fnmatchcase(part, each) for part, each in zip(parts, pattern, strict=False)):
        return False
    inside = parts[len(pattern) :]
    if pattern and len(parts) <= len(pattern):
        return len(parts) == len(pattern)
    # Such files are other programs' notes, by the custom of Parquet folders.
    return key.endswith(PARQUET) and not any(part.startswith((".", "_")) for part in inside)


def _partitions(key: str) -> dict[str, str | None]:
    named = [part.partition("=") for part in key.split("/")[:-1] if "=" in part]
    return {unquote(name): None if value == NULL_PARTITION else unquote(value) for name, _, value in named if name}
