"""Parquet files as one stream of rows in small batches; nothing but the files' footers is kept.

What the columns mean is not known here, except of what type those are that stand in folders' names.
"""

import bisect
import io
import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import Finding, ManifestError, StoreError
from pipeline.manifest.cells import COLUMNS
from pipeline.manifest.parquet_footer import TAIL_BYTES, Chunk, footer_bytes, read_chunks
from pipeline.manifest.sources import FoundFile, find_files
from pipeline.manifest.unpacking import check_packing, check_rows, safe_rows
from pipeline.store import StorageSettings, Store

RESULTS = "results.parquet"  # what a run leaves in its output; the key in its schema's metadata says that it is ours
PREFIX_KEY = b"happyhorse.prefix"
BATCH_ROWS = 8192
BATCH_BYTES = 16 << 20  # about: rows that hold images are read a few at a time
READ_BYTES = 1 << 20  # of a column at a time, from disk
READ_BYTES_REMOTE = 8 << 20
NUM_READERS = 16  # of footers
CONVERTIBLE = (".csv", ".jsonl", ".ndjson", ".json")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows below each other: `data` has the asked columns of the source's schema, `first_row` is its first's number."""

    first_row: int
    folder: str  # where the relative addresses in it begin
    data: pa.RecordBatch

    @property
    def end(self) -> int:
        return self.first_row + int(self.data.num_rows)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file and what its footer said."""

    file: FoundFile
    schema: pa.Schema
    groups: tuple[tuple[int, int], ...]  # (rows, bytes) of each row group
    chunks: tuple[tuple[Chunk, ...], ...]  # the columns of each row group

    @property
    def num_rows(self) -> int:
        return sum(rows for rows, _ in self.groups)


@dataclass(frozen=True)
class Source:
    """The files of a manifest, below each other."""

    parts: tuple[Part, ...]
    schema: pa.Schema  # of all parts: columns that one lacks are null there

    @cached_property
    def num_rows(self) -> int:
        return sum(part.num_rows for part in self.parts)

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(part.file.where for part in self.parts)

    @property
    def folders(self) -> tuple[str, ...]:
        """Of the files, where relative addresses in them begin."""
        return tuple(dict.fromkeys(part.file.folder for part in self.parts))

    @cached_property
    def _group_starts(self) -> list[int]:
        return [0, *accumulate(rows for part in self.parts for rows, _ in part.groups)][:-1]

    def group_start(self, row: int) -> int:
        """The first row of the row group that holds a row: where reading can begin."""
        return self._group_starts[bisect.bisect_right(self._group_starts, row) - 1] if self._group_starts else 0

    def batches(self, columns: Collection[str] | None = None, *, start: int = 0) -> Iterator[Batch]:
        """All rows from the group of row `start` on; None: every column, in the schema's order.

        ManifestError for damaged files, StoreError for those that are gone or others than they were.
        """
        wanted = self.schema if columns is None else _only(self.schema, columns)
        start = self.group_start(start)
        row = 0
        for part in self.parts:
            if row + part.num_rows > start:
                yield from _part_batches(part, wanted, row=row, start=start)
            row += part.num_rows


def open_source(uri: str, *, storage: StorageSettings) -> Source:
    """Reads the footers of all files. ManifestError for what is no Parquet or does not fit together."""
    files = find_files(uri, storage=storage)
    with ThreadPoolExecutor(NUM_READERS) as pool:
        parts = list(pool.map(_open_part, files))
    results = [part for part in parts if not part.file.alone and _is_results(part)]
    for part in results:
        log.info("%s is what a run left, and is not read as part of the manifest", part.file.where)
        parts.remove(part)
    check_rows(sum(part.num_rows for part in parts), uri)
    if not parts:
        where = results[0].file.where
        _fail(uri, f"nothing but what a run left ({where})", "other files; or name that one to render its rows")
    try:
        return Source(tuple(parts), _joined(parts))
    except pa.ArrowException as error:
        _fail(uri, f"files whose columns differ in type ({error})", "the same types in all of them")


class RowFinder:
    """Single rows again, for what needs them one by one: the last few batches stay at hand.

    Rows are cheap in the order of the manifest, and dear at random where row groups are large.
    """

    KEPT = 4

    def __init__(self, source: Source, columns: Collection[str] | None = None) -> None:
        self._source, self._columns = source, columns
        self._stream: Iterator[Batch] = iter(())
        self._next_row = -1  # the first that the stream has not given yet; -1: there is no stream
        self._kept: list[Batch] = []

    def find(self, row: int) -> Batch:
        """The batch that holds a row."""
        return next((each for each in self._kept if each.first_row <= row < each.end), None) or self._read(row)

    def _read(self, row: int) -> Batch:
        if not self._source.group_start(row) <= self._next_row <= row:
            self._stream = self._source.batches(self._columns, start=row)
        for batch in self._stream:
            self._next_row = batch.end
            if row < batch.end:
                self._kept = [*self._kept[1 - self.KEPT :], batch]
                return batch
        raise AssertionError(f"row {row} of {self._source.num_rows}")


def _open_part(file: FoundFile) -> Part:
    with _reading(file), _open(file) as reader:
        list(_names(reader.schema_arrow))
        chunks = _chunks(file)
        if len(chunks) != reader.metadata.num_row_groups:
            raise pa.ArrowInvalid("a footer that says two things")
        check_packing(chunks, file.where)
        return Part(file=file, schema=reader.schema_arrow, groups=_groups(reader), chunks=chunks)


def _part_batches(part: Part, wanted: pa.Schema, *, row: int, start: int) -> Iterator[Batch]:
    own = [name for name in part.schema.names if name in wanted.names] or part.schema.names[:1]
    with _reading(part.file), _open(part.file) as reader:
        if _groups(reader) != part.groups or not reader.schema_arrow.equals(part.schema):
            raise StoreError(f"{part.file.where} has changed since it was read; the same command reads it again")
        for number, (num_rows, num_bytes) in enumerate(part.groups):
            if num_rows and row >= start:
                size = max(1, min(BATCH_ROWS, BATCH_BYTES * num_rows // max(num_bytes, 1)))
                reopen = partial(_open, part.file)
                size = safe_rows(size, reopen, part.chunks[number], group=number, columns=own, where=part.file.where)
                first = row
                for data in reader.iter_batches(size, row_groups=[number], columns=own, use_threads=False):
                    yield Batch(first_row=first, folder=part.file.folder, data=_fitted(data, wanted, part))
                    first += data.num_rows
            row += num_rows


def _chunks(file: FoundFile) -> tuple[tuple[Chunk, ...], ...]:
    size = file.store.head(file.key) or 0
    end = max(size - TAIL_BYTES, 0)
    try:
        length = footer_bytes(file.store.get_range(file.key, end, size))
        return tuple(map(tuple, read_chunks(file.store.get_range(file.key, max(end - length, 0), end))))
    except ValueError as error:
        raise pa.ArrowInvalid(str(error)) from error


def _groups(reader: pq.ParquetFile) -> tuple[tuple[int, int], ...]:
    groups = (reader.metadata.row_group(number) for number in range(reader.metadata.num_row_groups))
    return tuple((group.num_rows, group.total_byte_size) for group in groups)


def _open(file: FoundFile, coded: Sequence[str] = ()) -> pq.ParquetFile:
    """`coded` columns are read as dictionaries."""
    # Arrow's reading threads may be torn down late and abort a process that ends soon after (arrow #34314).
    if "://" in file.where:
        source = pa.PythonFile(_RemoteFile(file.store, file.key), mode="r")
        return pq.ParquetFile(source, buffer_size=READ_BYTES_REMOTE, pre_buffer=False, read_dictionary=coded)
    return pq.ParquetFile(file.where, buffer_size=READ_BYTES, pre_buffer=False, read_dictionary=coded)


class _RemoteFile(io.RawIOBase):
    """An object of a bucket as a file that is read by ranges."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        size = store.head(key)
        if size is None:
            raise StoreError(f"cannot read {store.where(key)}: there is no such object")
        self._size, self._at = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._at + size, self._size)
        data = self._store.get_range(self._key, self._at, stop)
        self._at = max(stop, self._at)
        return data


@contextmanager
def _reading(file: FoundFile) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        _fail(file.where, f"the name of a column that is not UTF-8 ({error.reason})", "names in UTF-8")
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise StoreError(f"cannot read {file.where}: {os.strerror(error.errno)}") from error
        size = file.store.head(file.key) or 0
        reason = " ".join(str(error).split())[:120]
        wanted = "a Parquet file"
        if file.key.endswith(CONVERTIBLE):
            wanted += f"; `happyhorse manifest {file.where} TARGET.parquet` makes one of it"
        _fail(file.where, f"{size} bytes that are not Parquet ({reason})", wanted)


def _is_results(part: Part) -> bool:
    """By name and metadata: a table made from results under another name may have kept the metadata, and is read."""
    return part.file.where.endswith(f"/{RESULTS}") and PREFIX_KEY in (part.schema.metadata or {})


def _joined(parts: Sequence[Part]) -> pa.Schema:
    """Columns that one part lacks are null there, which is allowed whatever the other parts declare."""
    values = {
        name: [part.file.partitions.get(name) for part in parts] for part in parts for name in part.file.partitions
    }
    schemas = [part.schema for part in parts]
    schemas += [
        pa.schema([(name, _partition_type(name, of))]) for name, of in values.items() if not _has(schemas, name)
    ]
    schema = pa.unify_schemas(schemas) if len(schemas) > 1 else schemas[0]
    for number, column in enumerate(schema):
        if not all(column.name in part.schema.names for part in parts):
            schema = schema.set(number, column.with_nullable(True))
    return schema


def _has(schemas: Iterable[pa.Schema], name: str) -> bool:
    return any(name in schema.names for schema in schemas)


def _partition_type(name: str, values: Collection[str | None]) -> pa.DataType:
    """Whole numbers where all are written so; our own columns have the type that they need."""
    given = [value for value in values if value is not None]
    kind = COLUMNS.get(name)
    if (
        kind in (None, "integer", "number")
        and given
        and all(re.fullmatch(r"0|-?[1-9]\d{0,17}", each) for each in given)
    ):
        return pa.int64()
    return pa.bool_() if kind == "flag" and all(each in ("true", "false") for each in given) else pa.string()


def _fitted(data: pa.RecordBatch, wanted: pa.Schema, part: Part) -> pa.RecordBatch:
    """The wanted columns in their order and types; what the file lacks from the folders' names, else null."""
    columns = []
    for column in wanted:
        if column.name in part.schema.names:
            own = data.column(column.name)
            columns.append(own if own.type.equals(column.type) else own.cast(column.type))
        else:
            value = _partition_value(part.file.partitions, column)
            columns.append(pa.array([value] * data.num_rows, column.type))  # pa.nulls puts nulls in required children
    return pa.RecordBatch.from_arrays(columns, schema=wanted)


def _partition_value(partitions: Mapping[str, str | None], column: pa.Field) -> object:
    text = partitions.get(column.name)
    if text is None or pa.types.is_string(column.type):
        return text
    return text == "true" if pa.types.is_boolean(column.type) else int(text)


def _only(schema: pa.Schema, columns: Collection[str]) -> pa.Schema:
    return pa.schema([field for field in schema if field.name in columns], metadata=schema.metadata)


def _names(fields: Iterable[pa.Field]) -> Iterator[str]:
    for each in fields:
        yield each.name
        yield from _names(each.type.field(number) for number in range(each.type.num_fields))


def _fail(uri: str, got: str, expected: str) -> NoReturn:
    raise ManifestError(uri, [Finding(-1, "", got, expected)])
