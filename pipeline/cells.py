"""The manifest's known columns, from Arrow's types to plain Python values. Null, and a number's NaN, mean the default.

Checks types and nothing else; what a value must be is `rows.py`'s.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from pipeline.errors import Finding

Kind = Literal["text", "integer", "number", "flag", "media"]
COLUMNS: dict[str, Kind] = {
    "prompt": "text",
    "clip_id": "text",
    "image": "media",
    "audio": "flag",
    "audio_in": "media",
    "resolution": "text",
    "ratio": "text",
    "duration": "integer",
    "seed": "integer",
    "negative_prompt": "text",
    "steps": "integer",
    "guidance": "number",
    "priority": "integer",
}
EXPECTED: dict[Kind, str] = {
    "text": "a column of strings",
    "integer": "a column of integers",
    "number": "a column of numbers",
    "flag": "a column of booleans",
    "media": "a column of strings (addresses) or of struct{bytes, path}",
}
SHOWN_CHARS = 60

Cells = dict[str, list[Any]]  # column -> one value a row; None: the default


@dataclass(frozen=True)
class Findings:
    """Collects everything that is wrong, so that it can be said at once."""

    items: list[Finding] = field(default_factory=list)

    def add(self, row: int, column: str, got: object, expected: str) -> None:
        """`got` as it stood in the cell, or a description of it if it is a str that needs no quotation marks."""
        self.items.append(Finding(row, column, str(got), expected))

    def in_order(self) -> list[Finding]:
        return sorted(
            self.items, key=lambda finding: finding.row
        )  # stable: a row's own stay in the order of the checks


def quoted(value: object) -> str:
    """A cell's value for a message: as Python writes it, shortened."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}... ({len(text)} characters)"


def read_cells(table: pa.Table, findings: Findings) -> Cells:
    """Every known column, absent ones as all None. A wrong type is one finding for the column, not one for each row."""
    _check_names(table, findings)
    cells: Cells = {}
    for name, kind in COLUMNS.items():
        nothing = [None] * table.num_rows
        if table.column_names.count(name) != 1:
            cells[name] = nothing
        elif not _fits(table.schema.field(name).type, kind):
            findings.add(-1, name, f"a column of {table.schema.field(name).type}", EXPECTED[kind])
            cells[name] = nothing
        else:
            cells[name] = _values(table, name, kind, findings)
    return cells


def _check_names(table: pa.Table, findings: Findings) -> None:
    if "prompt" not in table.column_names:
        have = ", ".join(table.column_names) or "none"
        findings.add(-1, "prompt", f"no such column (there are: {have})", EXPECTED["text"])
    for name in sorted(set(table.column_names)):
        if table.column_names.count(name) > 1:
            findings.add(-1, name, f"{table.column_names.count(name)} columns of this name", "one")


def _values(table: pa.Table, name: str, kind: Kind, findings: Findings) -> list[Any]:
    try:
        values: list[Any] = table.column(name).to_pylist()
    except UnicodeDecodeError as error:
        findings.add(-1, name, f"bytes that are not UTF-8 ({error.reason})", EXPECTED[kind])
        return [None] * table.num_rows
    except (ValueError, OverflowError, LookupError) as error:  # what a struct holds beside bytes and path
        findings.add(-1, name, f"values that cannot be read ({error})", EXPECTED[kind])
        return [None] * table.num_rows
    if kind == "media":
        return [None if isinstance(value, dict) and not any(value.values()) else value for value in values]
    if kind in ("integer", "number"):
        return [_number(value, row, name, kind, findings) for row, value in enumerate(values)]
    return values


def _number(value: Any, row: int, name: str, kind: Kind, findings: Findings) -> Any:
    """Tables made by pandas hold integers beside nulls as floats: whole ones are taken as what they mean."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if kind == "number":
        return float(value)
    if isinstance(value, float) and not value.is_integer():
        findings.add(row, name, quoted(value), "an integer")
        return None
    return int(value)


def _fits(kind_of: pa.DataType, kind: Kind) -> bool:
    types = pa.types
    if types.is_dictionary(kind_of):
        kind_of = kind_of.value_type
    text = types.is_string(kind_of) or types.is_large_string(kind_of) or types.is_string_view(kind_of)
    if types.is_null(kind_of):
        return True
    if kind == "text":
        return bool(text)
    if kind == "flag":
        return bool(types.is_boolean(kind_of))
    if kind == "media":
        return bool(text) or _is_bytes_and_path(kind_of)
    return bool(types.is_integer(kind_of) or types.is_floating(kind_of))


def _is_bytes_and_path(kind_of: pa.DataType) -> bool:
    if not pa.types.is_struct(kind_of):
        return False
    parts = {kind_of.field(n).name: kind_of.field(n).type for n in range(kind_of.num_fields)}
    data, path = parts.get("bytes", pa.null()), parts.get("path", pa.null())
    holds_bytes = pa.types.is_binary(data) or pa.types.is_large_binary(data) or pa.types.is_null(data)
    return bool(parts.keys() & {"bytes", "path"}) and holds_bytes and _fits(path, "text")
