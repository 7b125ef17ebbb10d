"""`index.parquet` and `index.csv` of an export: a row for each clip, what results say of it and where its files are."""

import csv
import itertools
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError
from pipeline.export.names import plain_text
from pipeline.manifest.tables import open_source
from pipeline.store import Store
from pipeline.types import MediaFile

OUTPUT_KEY = b"happyhorse.output"
PARQUET, CSV = "index.parquet", "index.csv"
BATCH_ROWS = 1024


def check_index(target: Store, output: str) -> None:
    """ConfigError if another output was exported to that place: its index would be lost."""
    if target.head(PARQUET) is None:
        return
    known = (open_source(target.where(PARQUET), storage=target.settings).schema.metadata or {}).get(OUTPUT_KEY, b"")
    if known.decode() != output:
        other = f"of {known.decode()}" if known else "that no export left"
        raise ConfigError(f"{target.uri} has an index {other}; expected another place, or that output's own")


class IndexWriter:
    """Rows one by one, in two formats side by side."""

    def __init__(self, schema: pa.Schema, kinds: Collection[str], *, parquet: pq.ParquetWriter, table: Any) -> None:
        self._schema, self._kinds, self._parquet, self._table = schema, kinds, parquet, table
        self._prefix = export_prefix(schema.names)
        self._rows: list[Mapping[str, Any]] = []
        self._table.writerow(full_schema(schema, kinds).names)

    def add(self, cells: Mapping[str, Any], files: Mapping[str, tuple[str, MediaFile]]) -> None:
        """`files`: kind -> (name, what it holds) of those that are in place."""
        row = dict(cells)
        for kind in self._kinds:
            name, file = files.get(kind, (None, None))
            row |= {
                f"{self._prefix}{kind}": name,
                f"{self._prefix}{kind}_bytes": file.size_bytes if file else None,
                f"{self._prefix}{kind}_sha256": file.sha256 if file else None,
            }
        self._rows.append(row)
        self._table.writerow([_text(value) for value in row.values()])
        if len(self._rows) == BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        schema = full_schema(self._schema, self._kinds)
        self._parquet.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=schema))
        self._rows.clear()


@contextmanager
def open_index(folder: Path, schema: pa.Schema, kinds: Collection[str], *, output: str) -> Iterator[IndexWriter]:
    """Both files in a local folder; they are whole when the block ends."""
    full = full_schema(schema, kinds).with_metadata({OUTPUT_KEY: output.encode()})
    with ExitStack() as stack:
        parquet = stack.enter_context(pq.ParquetWriter(folder / PARQUET, full, compression="zstd"))
        opened = stack.enter_context((folder / CSV).open("w", newline="", encoding="utf-8"))
        writer = IndexWriter(schema, kinds, parquet=parquet, table=csv.writer(opened, lineterminator="\n"))
        yield writer
        writer.flush()


def full_schema(schema: pa.Schema, kinds: Collection[str]) -> pa.Schema:
    """The cells' columns, then for each kind its name, bytes and SHA-256 under a prefix that none of them has."""
    prefix = export_prefix(schema.names)
    own: list[pa.Field] = []
    for kind in kinds:
        own.append(pa.field(f"{prefix}{kind}", pa.string()))
        own.append(pa.field(f"{prefix}{kind}_bytes", pa.int64()))
        own.append(pa.field(f"{prefix}{kind}_sha256", pa.string()))
    return pa.schema([*schema, *own])


def export_prefix(columns: Collection[str]) -> str:
    """The first of `export_`, `export2_`, ... that no column begins with."""
    for number in itertools.count(1):
        prefix = f"export{number if number > 1 else ''}_"
        if not any(name.startswith(prefix) for name in columns):
            return prefix
    raise AssertionError("numbers do not end")


def _text(value: object) -> str:
    return "" if value is None else plain_text(value) or str(value)
