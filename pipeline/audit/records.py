"""Each record by itself, and every file that it names: there, its own, of its size and digest, and a whole clip's."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.audit.finding import AuditFinding
from pipeline.audit.media import check_media, recorded_shape
from pipeline.errors import StoreError
from pipeline.ledger import ClipRecord, Ledger, NotARecord, values_hash
from pipeline.publication import KINDS, file_name
from pipeline.recording import TEXTS
from pipeline.scratch import temporary_folder
from pipeline.side_by_side import side_by_side
from pipeline.store import Store
from pipeline.types import MediaFile

NUM_READERS = 8  # each has one file at a time on disk
SAID_EVERY = 10_000  # records
SHOWN = 60  # characters of a text
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LookedAt:
    """One key below `records/`: what it is a record of, and what is wrong with it and its files."""

    key: str
    record: ClipRecord | None  # None: it cannot be read
    findings: tuple[AuditFinding, ...]

    @property
    def files(self) -> tuple[MediaFile, ...]:
        return tuple(self.record.finished.files.values()) if self.record else ()


def look_at_records(store: Store) -> Iterator[LookedAt]:
    """All of an output's, in the order in which it is listed. StoreError if it cannot be listed."""
    looked = side_by_side(partial(look_at_record, store), Ledger(store).record_keys(), threads=NUM_READERS)
    for number, each in enumerate(looked, 1):
        if number % SAID_EVERY == 0:
            log.info("%s: %d records and their files looked at", store.uri, number)
        yield each


def look_at_record(store: Store, key: str) -> LookedAt:
    """StoreError if storage fails, which is no finding."""
    record: ClipRecord | None = None
    try:
        record = Ledger(store).read_record(key)
        findings = (*_check_record(key, record), *_check_files(store, key, record))
    except NotARecord as error:
        findings = (AuditFinding(record=key, got=str(error), expected="a record that can be read"),)
    except StoreError:
        if store.head(key) is not None:
            raise
        return LookedAt(key=key, record=None, findings=())
    if findings and store.head(key) is None:  # as above: removed since it was listed, by `clean` or by hand
        return LookedAt(key=key, record=None, findings=())
    return LookedAt(key=key, record=record, findings=findings)


def _check_record(key: str, record: ClipRecord) -> Iterator[AuditFinding]:
    """What can be said without looking at a file. Two records of one clip and hash cannot both have their own name."""
    if record.key != key:
        yield AuditFinding(record=key, got=f"the record of {record.key}", expected="its own name")
    try:
        hashed = values_hash(record.settings)
    except (ValueError, RecursionError) as error:
        hashed = f"nothing ({error})"
    if hashed != record.settings_hash:
        yield AuditFinding(record=key, got=f"settings that hash to {hashed}", expected=record.settings_hash)
    for name in ("model_hash", "seed"):
        if record.settings.get(name) != getattr(record, name):
            yield AuditFinding(
                record=key,
                got=f"{name} {getattr(record, name)!r}",
                expected=f"{record.settings.get(name)!r} as in its settings",
            )
    yield from _check_row(key, record)
    expected = {"mp4", "jpg"} | ({"wav"} if record.settings.get("audio") else set())
    for kind in sorted(expected ^ record.finished.files.keys()):
        is_missing = kind in expected
        yield AuditFinding(
            record=key, got=f"{'no' if is_missing else 'a'} {kind}", expected="one" if is_missing else "none"
        )


def _check_row(key: str, record: ClipRecord) -> Iterator[AuditFinding]:
    """What it says of its row is what the clip was made of; no hash holds it. Texts that were cut are named as such."""
    own = {"clip_id": record.clip_id} | {name: record.settings.get(name) for name in TEXTS}
    for name, expected in own.items():
        said = record.row.get(name)
        if said not in (None, expected) and name not in record.truncated:
            got = f"a row whose {name} is {str(said)[:SHOWN]!r}"
            yield AuditFinding(record=key, got=got, expected=f"{str(expected)[:SHOWN]!r}")


def _check_files(store: Store, key: str, record: ClipRecord) -> Iterator[AuditFinding]:
    try:
        recorded_shape(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        yield AuditFinding(record=key, got=f"settings without a shape ({error})", expected="one")
        return
    for kind, file in sorted(record.finished.files.items()):
        own = file_name(record.clip_id, record.finished.attempt, kind)
        if file.name != own:
            yield AuditFinding(record=key, file=str(file.name), got="a file that is not its own", expected=own)
        elif kind in KINDS:
            for got, expected in _check_file(store, kind, file, record):
                yield AuditFinding(record=key, file=file.name, got=got, expected=expected)


def _check_file(store: Store, kind: str, file: MediaFile, record: ClipRecord) -> Iterator[tuple[str, str]]:
    size_bytes = store.head(file.name)
    if size_bytes is None:
        yield "no such file", f"{file.size_bytes} bytes"
    elif size_bytes != file.size_bytes:
        yield f"{size_bytes} bytes", f"{file.size_bytes} bytes"
    else:
        with temporary_folder() as folder:
            path = folder / f"{record.clip_id}.{kind}"
            digest = _fetch(store, file.name, path)
            if digest != file.sha256:
                yield f"sha256 {digest}", f"sha256 {file.sha256}"
            else:  # of other bytes nothing more needs to be said
                yield from check_media(path, kind, record)


def _fetch(store: Store, key: str, path: Path) -> str:
    """Copies an object; its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in store.stream(key):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()
