"""Parquet files as one table: a file, a folder of them or a glob. What the columns mean is not known here."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import Finding, ManifestError
from pipeline.store import StorageSettings, open_store, split_uri

PARQUET = ".parquet"
RESULTS = "results.parquet"  # what a run leaves in its output; the key in its schema's metadata says that it is ours
PREFIX_KEY = b"happyhorse.prefix"
log = logging.getLogger(__name__)


def read_table(uri: str, *, storage: StorageSettings) -> tuple[pa.Table, str, tuple[str, ...]]:
    """The table, the address of the folder that relative images are looked for in, and those of the files read."""
    root, name = split_uri(uri.rstrip("/"))
    store = open_store(root, storage)
    if store.head(name) is not None:
        return _parse(store.get(name), uri), root, (store.where(name),)
    pattern = name if any(sign in name for sign in "*?[") else None
    folder = root if pattern else f"{root}/{name}"
    store = open_store(folder, storage)
    keys = sorted(key for key, _ in store.list() if _is_part(key, pattern))
    if not keys:
        _fail(uri, "no such file, and no folder with *.parquet files", "a Parquet file, a folder of them or a glob")
    parts = {store.where(key): _parse(store.get(key), store.where(key)) for key in keys}
    results = [file for file, part in parts.items() if _is_results(file, part)]
    for file in results:
        log.info("%s is what a run left, and is not read as part of the manifest", file)
        del parts[file]
    if not parts:
        _fail(uri, f"nothing but what a run left ({results[0]})", "other files; or name that one to render its rows")
    try:
        return _joined(list(parts.values())), folder, tuple(parts)
    except pa.ArrowException as error:
        _fail(uri, f"files whose columns differ in type ({error})", "the same types in all of them")


def _is_part(key: str, pattern: str | None) -> bool:
    """Hidden files and those that begin with `_` are other programs' notes, by the custom of Parquet folders."""
    if pattern is not None:
        return "/" not in key and fnmatchcase(key, pattern)
    return key.endswith(PARQUET) and not any(part.startswith((".", "_")) for part in key.split("/"))


def _is_results(file: str, part: pa.Table) -> bool:
    """By name and metadata: a table made from results under another name may have kept the metadata, and is read."""
    return file.endswith(f"/{RESULTS}") and PREFIX_KEY in (part.schema.metadata or {})


def _joined(parts: Sequence[pa.Table]) -> pa.Table:
    """The parts below each other, columns that one lacks as nulls: allowed there whatever the other parts declare."""
    filled = []
    for part in parts:
        for column in pa.unify_schemas([each.schema for each in parts]):
            if column.name not in part.column_names:
                nulls = pa.array([None] * part.num_rows, column.type)  # pa.nulls would put nulls in required children
                part = part.append_column(column.with_nullable(True), nulls)
        filled.append(part)
    return pa.concat_tables(filled, promote_options="default")


def _parse(data: bytes, uri: str) -> pa.Table:
    try:
        # Arrow's reading threads may be torn down late and abort a process that ends soon after (arrow #34314).
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        list(_names(table.schema))
    except UnicodeDecodeError as error:
        _fail(uri, f"the name of a column that is not UTF-8 ({error.reason})", "names in UTF-8")
    except (pa.ArrowException, OSError) as error:
        _fail(uri, f"{len(data)} bytes that are not Parquet ({' '.join(str(error).split())[:120]})", "a Parquet file")
    return table


def _names(fields: Iterable[pa.Field]) -> Iterator[str]:
    for each in fields:
        yield each.name
        yield from _names(each.type.field(number) for number in range(each.type.num_fields))


def _fail(uri: str, got: str, expected: str) -> NoReturn:
    raise ManifestError(uri, [Finding(-1, "", got, expected)])
