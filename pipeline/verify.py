"""Every record against its files: there, of the recorded size, with the recorded digest. Reads, changes nothing."""

import hashlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.errors import StoreError
from pipeline.ledger import ClipRecord, Ledger
from pipeline.store import Store
from pipeline.types import MediaFile

NUM_READERS = 8
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VerifyFinding:
    """One thing wrong: in a record itself (`file` is empty), or in a file that it names."""

    record: str
    file: str
    got: str
    expected: str

    def __str__(self) -> str:
        about = f"{self.record}: {self.file}" if self.file else self.record
        return f"{about}: got {self.got}, expected {self.expected}"


def verify_output(store: Store) -> list[VerifyFinding]:
    """All findings of an output, by record. StoreError if it cannot be listed, or has no records to check."""
    keys = sorted(Ledger(store).record_keys())
    if not keys:
        raise StoreError(f"{store.uri} holds no records: there is nothing to verify")
    with ThreadPoolExecutor(NUM_READERS) as pool:
        findings = [each for found in pool.map(lambda key: list(_check_record(store, key)), keys) for each in found]
    log.info("%s: %d records, %d findings", store.uri, len(keys), len(findings))
    return findings


def _check_record(store: Store, key: str) -> Iterator[VerifyFinding]:
    try:
        record = Ledger(store).read_record(key)
    except StoreError as error:
        yield VerifyFinding(record=key, file="", got=str(error), expected="a record that can be read")
        return
    if record.key != key:
        yield VerifyFinding(record=key, file="", got=f"the record of {record.key}", expected="its own name")
    for kind in sorted(_expected_kinds(record) - record.finished.files.keys()):
        yield VerifyFinding(record=key, file="", got=f"no {kind}", expected="one")
    for kind in sorted(record.finished.files):
        yield from _check_file(store, key, record.finished.files[kind])


def _expected_kinds(record: ClipRecord) -> set[str]:
    return {"mp4", "jpg"} | ({"wav"} if record.finished.probe.audio_duration_s is not None else set())


def _check_file(store: Store, key: str, file: MediaFile) -> Iterator[VerifyFinding]:
    size_bytes = store.head(file.name)
    if size_bytes is None:
        yield VerifyFinding(record=key, file=file.name, got="no such file", expected=f"{file.size_bytes} bytes")
    elif size_bytes != file.size_bytes:
        yield VerifyFinding(record=key, file=file.name, got=f"{size_bytes} bytes", expected=f"{file.size_bytes} bytes")
    else:
        digest = hashlib.sha256()
        for piece in store.stream(file.name):
            digest.update(piece)
        if digest.hexdigest() != file.sha256:
            yield VerifyFinding(
                record=key, file=file.name, got=f"sha256 {digest.hexdigest()}", expected=f"sha256 {file.sha256}"
            )
