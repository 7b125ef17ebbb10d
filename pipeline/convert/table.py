"""Rows of CSV or JSON -> a Parquet file, in two passes: what the columns hold, then the values. Constant memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.convert.cells import BadCell, parse_cell
from pipeline.convert.kinds import NULL, Shape, arrow_type, fitted, joined, shape_of, typed
from pipeline.convert.requests import Sizes, flattened, is_request
from pipeline.convert.rows import MAX_COLUMNS, SourceRow, TextFormat, is_text, read_rows
from pipeline.errors import Finding, ManifestError
from pipeline.manifest.cells import COLUMNS, Kind, quoted
from pipeline.manifest.findings import Findings

UNREAD = "unread"  # a prompt that could not be read: null would be said to be missing
BATCH_ROWS = 20_000
BATCH_CHARS = 32 << 20  # pictures in base64 fill a batch sooner
MEDIA_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
PLAIN: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "flag": pa.bool_(),
    "media": pa.string(),
}


@dataclass(kw_only=True)
class TextTable:
    """One file of CSV or JSON. `survey` first: it finds the columns' types and what is wrong."""

    path: Path
    file_format: TextFormat
    name: str  # for messages
    sizes: Sizes  # of the model, for requests that ask in pixels
    shapes: dict[str, Shape] = field(default_factory=dict)  # carried columns
    structs: set[str] = field(default_factory=set)  # media columns with a cell that is no mere address
    columns: dict[str, None] = field(default_factory=dict)  # in order of their first appearance

    def survey(self, findings: Findings) -> None:
        """Looks at every value. ManifestError for what leaves nothing to go on with."""
        number = -1
        for number, row in enumerate(self._rows()):
            if row.problem:
                findings.add(number, "", *row.problem)
            for name, value in self._cells(row, _complaints(findings, number)):
                try:
                    self._note(name)
                    self._look_at(name, value)
                except BadCell as error:
                    findings.add(number, name if is_text(name) else "", error.got, error.expected)
            if number % BATCH_ROWS == 0:
                findings.settle()
        if number < 0:
            self._fail("no rows", "at least one")

    def write(self, target: Path) -> None:
        """The rows as Parquet. For what `survey` complained of there is something that nobody complains of again."""
        schema = pa.schema([(name, self._type(name)) for name in self.columns])
        with pq.ParquetWriter(target, schema) as writer:
            for batch in self._batches():
                arrays = [pa.array(batch[name], schema.field(name).type) for name in self.columns]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))

    def _rows(self) -> Iterator[SourceRow]:
        return read_rows(self.path, self.file_format, name=self.name)

    def _cells(self, row: SourceRow, complain: Callable[[str, str, str], None]) -> Iterator[tuple[str, Any]]:
        values = row.values
        if self.file_format != "csv" and is_request(values):
            values = flattened(values, sizes=self.sizes, complain=complain)
        return iter(values.items())

    def _note(self, name: str) -> None:
        if name in self.columns:
            return
        if not name or not is_text(name):
            raise BadCell(f"a column of the name {quoted(name)}", "a name in UTF-8")
        if len(self.columns) == MAX_COLUMNS:
            self._fail(f"a column more, {quoted(name)}", f"at most {MAX_COLUMNS} columns")
        self.columns[name] = None

    def _fail(self, got: str, expected: str) -> NoReturn:
        raise ManifestError(self.name, [Finding(-1, "", got, expected)])

    def _look_at(self, name: str, value: Any) -> None:
        kind = COLUMNS.get(name)
        if kind is None:
            self.shapes[name] = joined(self.shapes.get(name, NULL), shape_of(self._typed(value)))
        elif isinstance(parse_cell(kind, value), dict):
            self.structs.add(name)

    def _type(self, name: str) -> pa.DataType:
        kind = COLUMNS.get(name)
        if kind is None:
            return arrow_type(self.shapes.get(name, NULL))
        return MEDIA_STRUCT if name in self.structs else PLAIN[kind]

    def _batches(self) -> Iterator[dict[str, list[Any]]]:
        batch: dict[str, list[Any]] = {name: [] for name in self.columns}
        num_rows = num_chars = 0
        for row in self._rows():
            values = {"prompt": UNREAD} if row.problem else dict(self._cells(row, _ignore))
            for name, column in batch.items():
                column.append(self._value(name, values.get(name)))
            num_rows += 1
            num_chars += sum(_num_chars(value) for value in values.values())
            if num_rows == BATCH_ROWS or num_chars > BATCH_CHARS:
                yield batch
                batch = {name: [] for name in self.columns}
                num_rows = num_chars = 0
        yield batch

    def _value(self, name: str, value: Any) -> Any:
        kind = COLUMNS.get(name)
        try:
            if kind is None:
                return self._carried(name, value)
            parsed = parse_cell(kind, value)
        except BadCell:
            return UNREAD if name == "prompt" else None
        return {"bytes": None, "path": parsed} if name in self.structs and isinstance(parsed, str) else parsed

    def _carried(self, name: str, value: Any) -> Any:
        shape = self.shapes.get(name, NULL)
        read = self._typed(value)
        shape_of(read)  # BadCell: `survey` left it out of the column's shape
        return fitted(value if shape.name in ("text", "mixed") else read, shape)

    def _typed(self, value: Any) -> Any:
        return typed(value) if self.file_format == "csv" and value is not None else value


def _num_chars(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_num_chars, value.values()))
    return sum(map(_num_chars, value)) if isinstance(value, list) else 8


def _complaints(findings: Findings, row: int) -> Callable[[str, str, str], None]:
    return lambda column, got, expected: findings.add(row, column, got, expected)


def _ignore(column: str, got: str, expected: str) -> None:
    """The second pass has heard it all."""
