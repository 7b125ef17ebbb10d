"""All that is wrong with a manifest: the first in full, the rest by kind, and every one in a file on request."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import Finding, ManifestError, finding_kind
from pipeline.store import StorageSettings, open_store, split_uri

FIELDS = pa.schema([("row", pa.int64()), ("column", pa.string()), ("got", pa.string()), ("expected", pa.string())])


class Findings:
    """Collects everything that is wrong, so that it can be said at once.

    `settle` is to be called now and then: it puts what has come since into the order of the rows and keeps little.
    """

    KEPT = 10_000

    def __init__(self, file: pq.ParquetWriter | None = None) -> None:
        self.items: list[Finding] = []
        self._num_settled = 0
        self._more: Counter[tuple[str, str]] = Counter()
        self._file = file

    def add(self, row: int, column: str, got: object, expected: str) -> None:
        """`got` as it stood in the cell, or a description of it if it is a str that needs no quotation marks."""
        self.items.append(Finding(row, column, str(got), expected))

    def take(self, others: "Findings", *, first_row: int, selected: Sequence[bool]) -> None:
        """What was found in a batch: of its rows those that are selected; about a whole column once for all batches."""
        known = {finding.column for finding in self.items if finding.row < 0}
        for finding in others.items:
            if selected[finding.row - first_row] if finding.row >= 0 else finding.column not in known:
                self.items.append(finding)

    def settle(self) -> None:
        new = sorted(self.items[self._num_settled :], key=_row)  # a row's own stay in the order of the checks
        del self.items[self._num_settled :]
        if self._file is not None and new:
            self._file.write_batch(_as_batch(new))
        room = max(self.KEPT - len(self.items), 0)
        self.items += new[:room]
        self._more.update(finding_kind(finding) for finding in new[room:])
        self._num_settled = len(self.items)

    def in_order(self) -> list[Finding]:
        self.settle()
        return sorted(self.items, key=_row)

    def raise_if_any(self, uri: str) -> None:
        found = self.in_order()
        if found:
            raise ManifestError(uri, found, more=dict(self._more))


def write_findings(findings: Iterable[Finding], address: str, *, storage: StorageSettings) -> None:
    with findings_file(address, storage) as file:
        assert file is not None  # there is an address
        file.write_batch(_as_batch(list(findings)))


def _as_batch(findings: Sequence[Finding]) -> pa.RecordBatch:
    rows = [(each.row, each.column, each.value, each.expected) for each in findings]
    columns = zip(*rows, strict=True) if rows else [()] * len(FIELDS)
    arrays = [pa.array(values, kind) for values, kind in zip(columns, FIELDS.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=FIELDS)


def _row(finding: Finding) -> int:
    return finding.row


@contextmanager
def findings_file(address: str | None, storage: StorageSettings) -> Iterator[pq.ParquetWriter | None]:
    """A Parquet file of all findings, written whole at the end, also when it has no rows. None: none is wanted."""
    if address is None:
        yield None
        return
    root, name = split_uri(address)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "findings.parquet"
        with pq.ParquetWriter(local, FIELDS) as writer:
            yield writer
        open_store(root, storage).put_file(name, local)
