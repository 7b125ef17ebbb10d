"""How a clip's files reach the output. Its record, which makes the clip done, is the committer's: `ledger.py`.

Their names are shared with no other attempt: what is left of one that died hurts nobody, for no record names it.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.store import Store
from pipeline.types import MediaFile

CLIPS = "clips"
log = logging.getLogger(__name__)
KINDS = ("mp4", "wav", "jpg")


def file_name(clip_id: str, attempt: str, kind: str) -> str:
    """A delivered file's key below the output."""
    return f"{CLIPS}/{clip_id}.{attempt}.{kind}"


def upload(store: Store, files: Mapping[str, Path]) -> dict[str, MediaFile]:
    """Local files by kind, named `<clip_id>.<attempt>.<kind>`. StoreError if what arrived is not what was sent.

    Whatever an attempt that fails has put there is removed again, if storage lets us: a full disk gets no fuller.
    """
    uploaded: dict[str, MediaFile] = {}
    try:
        for kind, path in files.items():
            uploaded[kind] = _upload(store, path)
    except StoreError:
        _remove(store, [_name(path) for path in files.values()])
        raise
    return uploaded


def check_seen(store: Store, files: Mapping[str, MediaFile]) -> None:
    """What another machine has written to a folder is there for this one. StoreError if the two have no such folder."""
    for file in files.values():
        if store.head(file.name) != file.size_bytes:
            raise StoreError(
                f"{store.where(file.name)} was written by a worker, but is not there for the driver: with workers on "
                "other machines the output is a bucket, or a folder that all of them share"
            )


def _upload(store: Store, path: Path) -> MediaFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    store.put_file(_name(path), path, sha256=digest)
    return MediaFile(name=_name(path), size_bytes=path.stat().st_size, sha256=digest)


def _remove(store: Store, names: Sequence[str]) -> None:
    try:
        for name in names:
            store.delete(name)
    except StoreError as error:
        log.warning("what this attempt had uploaded is left: %s", error)


def _name(path: Path) -> str:
    return f"{CLIPS}/{path.name}"
