"""Outputs to export from: real records, real results, files whose bytes are what the records say."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.ledger import ClipRecord, Ledger
from pipeline.results import write_results
from pipeline.store import Store
from pipeline.types import Clip, MediaFile
from tests.clips import make_record, outcomes_of
from tests.manifests import read, write


def content(clip_id: str, kind: str, *, say: str = "") -> bytes:
    return f"{clip_id} {kind} {say}".encode() * 1000


def deliver(store: Store, clip: Clip, *, say: str = "", **changes: Any) -> ClipRecord:
    """A finished clip: its files, then its record."""
    record = make_record(clip, **changes)
    files = {}
    for kind, file in record.finished.files.items():
        data = content(clip.clip_id, kind, say=say)
        store.put(file.name, data)
        files[kind] = MediaFile(name=file.name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    record = replace(record, finished=replace(record.finished, files=files))
    Ledger(store).record(record)
    return record


def rendered(store: Store, folder: Path, columns: dict[str, Any], *, unfinished: tuple[str, ...] = ()) -> None:
    """An output as a run leaves it, of a manifest with these columns, all clips done but some."""
    manifest = read(write(folder, columns))
    records = {
        clip.clip_id: deliver(store, clip, settings_hash=manifest.settings_hash(clip))
        for clip in manifest.clips
        if clip.clip_id not in unfinished
    }
    write_results(store, manifest, outcomes_of(manifest.index, records))
