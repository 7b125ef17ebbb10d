"""What `results.parquet` and `_SUCCESS.json` say is done, held against the records that are there.

A run writes them after the records, so what they say stays true while it goes on; they are fetched before records are
listed. Rows that have been done since are no findings.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.audit.finding import AuditFinding
from pipeline.errors import Finding, ManifestError
from pipeline.keyset import KeySet
from pipeline.ledger import ClipRecord
from pipeline.manifest.tables import PREFIX_KEY, RESULTS, Source, open_source
from pipeline.recording import SUCCESS_KEY
from pipeline.scratch import temporary_folder
from pipeline.store import StorageSettings, Store
from pipeline.types import JsonDict

COLUMNS = ("clip_id", "state", "record", "attempt", "mp4", "wav", "poster")  # ours, behind the prefix


@dataclass(frozen=True, kw_only=True)
class Claims:
    """A copy of the results as they were; without them there is nothing that could be wrong but their absence."""

    results: Path | None
    is_success: bool

    def check(self, *, records: KeySet, stands: KeySet, wrong: KeySet) -> Iterator[AuditFinding]:
        """`records` are the keys of those that are there, `stands` what `stand` says of each.

        Of `wrong` ones something was found already; what follows from that is not said again.
        """
        if self.results is None:
            if self.is_success:
                got, expected = "no such file", f"one, because {SUCCESS_KEY} is there"
                yield AuditFinding(record=RESULTS, got=got, expected=expected)
            return
        try:
            for rows in self._done_rows():
                yield from _check_rows(rows, records=records, stands=stands, wrong=wrong)
        except ManifestError as error:
            (finding, *_) = error.findings
            yield AuditFinding(record=RESULTS, got=finding.value, expected=finding.expected)

    def names(self) -> Iterator[str]:
        """Keys of the records and files that the results count on. ManifestError if they cannot be read."""
        for rows in self._done_rows():
            yield from (row[name] for row in rows for name in ("record", "mp4", "wav", "poster") if row[name])

    def _done_rows(self) -> Iterator[list[JsonDict]]:
        if self.results is None:
            return
        source = open_source(str(self.results), storage=StorageSettings())
        names = _our_columns(source)
        for batch in source.batches(names):
            columns = {names[name]: batch.data.column(name).to_pylist() for name in names}
            rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
            yield [row for row in rows if row["state"] == "SUCCEEDED"]


@contextmanager
def fetched_claims(store: Store) -> Iterator[Claims]:
    """`_SUCCESS.json` first: the results that it stands for are there before it."""
    is_success = store.head(SUCCESS_KEY) is not None
    with temporary_folder() as folder:
        path = folder / RESULTS
        is_there = store.head(RESULTS) is not None
        if is_there:
            with path.open("wb") as file:
                for piece in store.stream(RESULTS):
                    file.write(piece)
        yield Claims(results=path if is_there else None, is_success=is_success)


def stand(record: ClipRecord) -> str:
    """All that results repeat of a record, in one text."""
    names = {kind: file.name for kind, file in record.finished.files.items()}
    return _stand([record.key, record.clip_id, record.finished.attempt, *(names.get(k) for k in ("mp4", "wav", "jpg"))])


def _stand(parts: Sequence[str | None]) -> str:
    return "\n".join(part or "" for part in parts)


def _check_rows(rows: Sequence[JsonDict], *, records: KeySet, stands: KeySet, wrong: KeySet) -> Iterator[AuditFinding]:
    keys = [str(row["record"]) for row in rows]
    told = [_stand([row[name] for name in ("record", "clip_id", "attempt", "mp4", "wav", "poster")]) for row in rows]
    are_there, are_so = records.contains(keys), stands.contains(told) | wrong.contains(keys)
    for row, is_there, is_so in zip(rows, are_there.tolist(), are_so.tolist(), strict=True):
        claim = f"the one by which {RESULTS} says that clip {row['clip_id']} is done"
        if not is_there:
            yield AuditFinding(record=str(row["record"]), got="no such record", expected=claim)
        elif not is_so:
            expected = f"{claim}, of attempt {row['attempt']}"
            yield AuditFinding(record=str(row["record"]), got="another one", expected=expected)


def _our_columns(source: Source) -> dict[str, str]:
    """Column in the file -> its name without the prefix."""
    prefix = (source.schema.metadata or {}).get(PREFIX_KEY, b"render_").decode()
    names = {prefix + name: name for name in COLUMNS}
    missing = sorted(names.keys() - set(source.schema.names))
    if missing:
        raise ManifestError(RESULTS, [Finding(-1, "", f"no column {', '.join(missing)}", "what a run leaves")])
    return names
