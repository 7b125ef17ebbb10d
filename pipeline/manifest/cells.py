"""The manifest's known columns, from Arrow's types to plain Python values. Null, and a number's NaN, mean the default.

Checks types and nothing else; what a value must be is `rows.py`'s.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Literal

import pyarrow as pa

from pipeline.manifest.findings import Findings
from pipeline.redact import redacted

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
NEAR = 0.78  # ratoi is 0.8 like ratio

Cells = dict[str, list[Any]]  # column that a table has -> one value a row; None: the default


def quoted(value: object) -> str:
    """A cell's value for a message: as Python writes it, shortened."""
    text = "null" if value is None else redacted(repr(value))
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}... ({len(text)} characters)"


def usable_columns(schema: pa.Schema, findings: Findings) -> tuple[str, ...]:
    """The known columns that a table has. A wrong type is one finding for the column, not one for each row."""
    _check_names(schema, findings)
    usable = []
    for name, kind in COLUMNS.items():
        if schema.names.count(name) != 1:
            continue
        if _fits(schema.field(name).type, kind):
            usable.append(name)
        else:
            findings.add(-1, name, f"a column of {schema.field(name).type}", EXPECTED[kind])
    return tuple(usable)


def read_cells(data: pa.RecordBatch, columns: Sequence[str], findings: Findings, *, first_row: int = 0) -> Cells:
    """The cells of usable columns."""
    return {name: _values(data.column(name), name, first_row, findings) for name in columns}


def near_misses(names: Iterable[str]) -> dict[str, str]:
    """Columns that mean nothing to us but are written almost like one that does -> that one."""
    near: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[\s.-]+", "_", name.strip().lower())
        if name not in COLUMNS and (found := get_close_matches(plain, COLUMNS, n=1, cutoff=NEAR)):
            near[name] = found[0]
    return near


def _check_names(schema: pa.Schema, findings: Findings) -> None:
    if "prompt" not in schema.names:
        have = ", ".join(schema.names) or "none"
        findings.add(-1, "prompt", f"no such column (there are: {have})", EXPECTED["text"])
    for name, count in sorted(Counter(schema.names).items()):
        if count > 1:
            findings.add(-1, name, f"{count} columns of this name", "one")


def _values(column: pa.Array, name: str, first_row: int, findings: Findings) -> list[Any]:
    kind = COLUMNS[name]
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError as error:
        findings.add(-1, name, f"bytes that are not UTF-8 ({error.reason})", EXPECTED[kind])
        return [None] * len(column)
    except (ValueError, OverflowError, LookupError) as error:  # what a struct holds beside bytes and path
        findings.add(-1, name, f"values that cannot be read ({error})", EXPECTED[kind])
        return [None] * len(column)
    if kind == "media":
        return [None if isinstance(value, dict) and not any(value.values()) else value for value in values]
    if kind == "number" or (kind == "integer" and not pa.types.is_integer(column.type)):
        return [_number(value, first_row + offset, name, kind, findings) for offset, value in enumerate(values)]
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
