"""CSV, JSON Lines and JSON files as rows of plain values, one after another. What the columns mean is not known here.

A row that cannot be read keeps its place, with what is wrong about it. Lines and documents are bounded, so that neither
a file without line ends nor one of ten million brackets fills the memory.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

from pipeline.errors import Finding, ManifestError
from pipeline.manifest.cells import quoted

TextFormat = Literal["csv", "jsonl", "json"]
MAX_LINE_BYTES = 32 << 20  # an image of 20 MB in base64 fits
MAX_JSON_BYTES = 64 << 20  # a JSON file is read whole; JSON Lines may be of any size
MAX_LINE_VALUES = 200_000  # commas and brackets, those in texts included: a bound on what a line unpacks to
MAX_JSON_VALUES = 2_000_000
MAX_COLUMNS = 1_000
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """One row as it stood in the file: texts from CSV, anything from JSON. `problem` is (got, expected)."""

    values: dict[str, Any] = field(default_factory=dict)
    problem: tuple[str, str] | None = None


def read_rows(path: Path, file_format: TextFormat, *, name: str) -> Iterator[SourceRow]:
    """Rows in the file's order. ManifestError, under `name`, for what leaves nothing to go on with."""
    readers: dict[TextFormat, Callable[[Path, str], Iterator[SourceRow]]] = {
        "csv": _read_csv,
        "jsonl": _read_json_lines,
        "json": _read_json,
    }
    return readers[file_format](path, name)


def _read_csv(path: Path, name: str) -> Iterator[SourceRow]:
    """The first row names the columns. Empty cells are None."""
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(_lines(path, name), strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
    except csv.Error as error:
        _fail(name, f"a first row that is not CSV ({error})", "the names of the columns, with commas between them")
    _check_header(header, name)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield SourceRow(problem=(f"a row that is not CSV ({error})", "quotation marks doubled inside quoted cells"))
            continue
        if len(cells) == len(header):
            yield SourceRow(values={column: cell or None for column, cell in zip(header, cells, strict=True)})
        elif cells:
            yield SourceRow(problem=(f"{len(cells)} cells", f"{len(header)}, as many as there are columns"))


def _check_header(header: list[str], name: str) -> None:
    if not header:
        _fail(name, "an empty file", "a first row with the names of the columns")
    if len(header) > MAX_COLUMNS:
        _fail(name, f"{len(header)} columns", f"at most {MAX_COLUMNS}")
    if len(header) == 1 and ";" in header[0]:
        _fail(name, "columns with semicolons between them", "commas")
    for number, column in enumerate(header, 1):
        if not column:
            _fail(name, f"a column without a name, the {number}th of {len(header)}", "a name for every column")
        if not is_text(column):
            _fail(name, f"a column's name that is not UTF-8 ({quoted(column)})", "text in UTF-8")
        if header.count(column) > 1:
            _fail(name, f"{header.count(column)} columns of the name {quoted(column)}", "one")


def _read_json_lines(path: Path, name: str) -> Iterator[SourceRow]:
    for line in _lines(path, name):
        if not line.isspace():
            yield _parsed_line(line)


def _parsed_line(line: str) -> SourceRow:
    if _num_values(line) > MAX_LINE_VALUES:
        return SourceRow(problem=("a line of too many values", f"at most {MAX_LINE_VALUES}"))
    try:
        return _row(parse_json(line))
    except ValueError as error:
        return SourceRow(problem=(f"{quoted(line.strip())}, which is not JSON ({error})", "one JSON object a line"))


def _read_json(path: Path, name: str) -> Iterator[SourceRow]:
    """An array of objects, or one object: one row."""
    if path.stat().st_size > MAX_JSON_BYTES:
        got = f"{path.stat().st_size / 1e6:.0f} MB of JSON"
        _fail(name, got, f"at most {MAX_JSON_BYTES >> 20} MiB; JSON Lines may be of any size")
    data = path.read_bytes()
    text = _decoded(data, name, is_first=True)
    if _num_values(text) > MAX_JSON_VALUES:
        _fail(name, "JSON of too many values", f"at most {MAX_JSON_VALUES}; JSON Lines may hold more")
    try:
        document = parse_json(text)
    except ValueError as error:
        _fail(name, f"{len(data)} bytes that are not JSON ({error})", "an array of objects, or one object")
    if not isinstance(document, list | dict):
        _fail(name, f"JSON that is {quoted(document)}", "an array of objects, or one object")
    yield from map(_row, document if isinstance(document, list) else [document])


def _row(value: Any) -> SourceRow:
    if isinstance(value, dict):
        return SourceRow(values=value)
    return SourceRow(problem=(quoted(value), "a JSON object"))


def parse_json(text: str) -> Any:
    """ValueError in a few words, also for what is nested too deeply and for a key that is given twice."""
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {quoted(next(name for name in names if names.count(name) > 1))} is given twice")
    return values


def is_text(value: str) -> bool:
    """Whether it can be written as UTF-8: half a surrogate pair cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _num_values(text: str) -> int:
    return text.count(",") + text.count("[") + text.count("{")


def _lines(path: Path, name: str) -> Iterator[str]:
    """Lines with their ends. Bytes that are not UTF-8 become lone surrogates, for the row's reader to complain of."""
    with path.open("rb") as file:
        is_first = True
        while line := file.readline(MAX_LINE_BYTES + 1):
            if len(line) > MAX_LINE_BYTES:
                _fail(name, f"a line of more than {MAX_LINE_BYTES >> 20} MiB", "shorter lines")
            yield _decoded(line, name, is_first=is_first)
            is_first = False


def _decoded(data: bytes, name: str, *, is_first: bool) -> str:
    if is_first and data.startswith(UTF_16):
        _fail(name, "text in UTF-16", "text in UTF-8")
    return data.decode("utf-8-sig" if is_first else "utf-8", errors="surrogateescape")


def _fail(name: str, got: str, expected: str) -> NoReturn:
    raise ManifestError(name, [Finding(-1, "", got, expected)])
