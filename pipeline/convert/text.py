"""Record batches -> CSV, JSON Lines or JSON. Bytes become base64, moments their ISO text, NaN null.

CSV tells an empty text from none as little as a spreadsheet does: where that would change a clip it is a finding.
"""

import base64
import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date, time
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.convert.cells import BadCell
from pipeline.convert.rows import TextFormat
from pipeline.manifest.cells import COLUMNS, quoted
from pipeline.manifest.findings import Findings

READABLE = (UnicodeDecodeError, ValueError, OverflowError, LookupError)  # what Arrow's values raise that Python lacks


def write_text(
    batches: Iterable[pa.RecordBatch],
    target: Path,
    file_format: TextFormat,
    *,
    names: Sequence[str],
    findings: Findings,
) -> None:
    """All rows in order. What the format cannot hold goes into `findings`, and the file is worth nothing then."""
    writers: dict[TextFormat, Callable[[Iterator[list[Any]], TextIO, Sequence[str]], None]] = {
        "csv": _write_csv,
        "jsonl": _write_json_lines,
        "json": _write_json,
    }
    rows = _rows(batches, findings, is_csv=file_format == "csv")
    with target.open("w", encoding="utf-8", newline="") as file:
        writers[file_format](rows, file, names)


def _rows(batches: Iterable[pa.RecordBatch], findings: Findings, *, is_csv: bool) -> Iterator[list[Any]]:
    start = 0
    for batch in batches:
        columns = [
            _plain_column(batch.column(number), name, start, findings, is_csv=is_csv)
            for number, name in enumerate(batch.schema.names)
        ]
        yield from (list(row) for row in zip(*columns, strict=True))
        start += batch.num_rows


def _plain_column(column: pa.Array, name: str, start: int, findings: Findings, *, is_csv: bool) -> list[Any]:
    plain = []
    for row, value in enumerate(_values(column), start):
        try:
            if is_csv and value == "" and name in COLUMNS:
                raise BadCell("an empty text", "a format that tells it from none: JSON Lines or JSON")
            plain.append(_plain(value() if callable(value) else value))
        except BadCell as error:
            findings.add(row, name, error.got, error.expected)
            plain.append(None)
    return plain


def _values(column: pa.Array) -> Iterable[Any]:
    """Python's values; where one of them cannot be had, functions that say so each for itself."""
    if pa.types.is_temporal(column.type) and not pa.types.is_duration(column.type):
        with suppress(pa.ArrowException):
            column = pc.cast(column, pa.string())  # whatever unit, year and zone
    try:
        return list(column.to_pylist())
    except READABLE:
        return [_Reader(scalar) for scalar in column]


class _Reader:
    def __init__(self, scalar: pa.Scalar) -> None:
        self._scalar = scalar

    def __call__(self) -> Any:
        try:
            return self._scalar.as_py()
        except READABLE as error:
            raise BadCell(f"a value that cannot be read ({error})", "one that text can hold") from error


def _plain(value: Any) -> Any:
    """Fit for JSON. BadCell for an infinite number."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise BadCell(quoted(value), "a finite number: JSON and CSV have no others")
        return None if math.isnan(value) else value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


def _write_csv(rows: Iterator[list[Any]], file: TextIO, names: Sequence[str]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(value) for value in row])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _json(value)


def _write_json_lines(rows: Iterator[list[Any]], file: TextIO, names: Sequence[str]) -> None:
    for row in rows:
        file.write(_json(dict(zip(names, row, strict=True))) + "\n")


def _write_json(rows: Iterator[list[Any]], file: TextIO, names: Sequence[str]) -> None:
    separator = "[\n"
    for row in rows:
        file.write(separator + _json(dict(zip(names, row, strict=True))))
        separator = ",\n"
    file.write("\n]\n")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
