"""How a clip's files reach the output. Its record, which makes the clip done, is the committer's: `ledger.py`.

Their names are shared with no other attempt: what is left of one that died hurts nobody, for no record names it.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pipeline.store import Store
from pipeline.types import MediaFile

CLIPS = "clips"


def upload(store: Store, files: Mapping[str, Path]) -> dict[str, MediaFile]:
    """Local files by kind, named `<clip_id>.<attempt>.<kind>`. StoreError if what arrived is not what was sent."""
    return {kind: _upload(store, path) for kind, path in files.items()}


def _upload(store: Store, path: Path) -> MediaFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = f"{CLIPS}/{path.name}"
    store.put_file(name, path, sha256=digest)
    return MediaFile(name=name, size_bytes=path.stat().st_size, sha256=digest)
