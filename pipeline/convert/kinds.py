"""What the columns that are carried hold, found by looking at every value: the smallest Arrow type that keeps them all.

Where values agree on nothing (a number here, a text there), the column becomes text: texts as they are, others as JSON.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from pipeline.convert.cells import BadCell
from pipeline.convert.rows import is_text
from pipeline.manifest.cells import quoted

Name = Literal["null", "bool", "int", "wide", "float", "text", "mixed", "list", "struct"]
EXACT = 2**53  # integers up to here are floats too
INT64 = 2**63
MAX_DEPTH = 20
MAX_FIELDS = 200  # objects with more keys, those inside included, become JSON texts

INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+([eE][+-][0-9]{1,3})?|[eE][+-][0-9]{1,3})")
MAX_DIGITS = 15  # more are not kept by a float


@dataclass(frozen=True)
class Shape:
    """The kind of a column, or of a part of it: `item` is a list's, `fields` are a struct's."""

    name: Name
    item: "Shape | None" = None
    fields: tuple[tuple[str, "Shape"], ...] = ()


NULL, BOOL, INT, WIDE, FLOAT, TEXT, MIXED = (
    Shape(name) for name in ("null", "bool", "int", "wide", "float", "text", "mixed")
)
ARROW = {"null": pa.null(), "bool": pa.bool_(), "int": pa.int64(), "wide": pa.int64(), "float": pa.float64()}


def shape_of(value: Any, *, depth: int = 0) -> Shape:
    """Of one value from JSON. BadCell for text that is not Unicode, in it or in a key of it."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return INT if -EXACT <= value <= EXACT else WIDE if -INT64 <= value < INT64 else MIXED
    if isinstance(value, float):
        return FLOAT
    if isinstance(value, str):
        return _text(value)
    if depth >= MAX_DEPTH:
        raise BadCell("values nested too deeply", f"at most {MAX_DEPTH} levels")
    if isinstance(value, list):
        item = NULL
        for each in value:
            item = joined(item, shape_of(each, depth=depth + 1))
        return Shape("list", item=item)
    for name in value:
        _text(name)
    fields = tuple((name, shape_of(each, depth=depth + 1)) for name, each in value.items())
    return _struct(fields)


def joined(one: Shape, other: Shape) -> Shape:
    """The kind that holds the values of both."""
    if one is other or other is NULL or one == other:
        return one
    if one is NULL:
        return other
    names = {one.name, other.name}
    if names == {"int", "wide"}:
        return WIDE
    if names == {"int", "float"}:
        return FLOAT
    if names == {"list"}:
        assert one.item is not None
        assert other.item is not None
        return Shape("list", item=joined(one.item, other.item))
    if names == {"struct"}:
        fields = dict(one.fields)
        for name, shape in other.fields:
            fields[name] = joined(fields.get(name, NULL), shape)
        return _struct(tuple(fields.items()))
    return MIXED


def arrow_type(shape: Shape, *, inside: bool = False) -> pa.DataType:
    if shape.name == "list":
        assert shape.item is not None
        return pa.list_(arrow_type(shape.item, inside=True))
    if shape.name == "struct":
        return pa.struct([(name, arrow_type(each, inside=True)) for name, each in shape.fields])
    if shape is NULL and inside:
        return pa.string()
    return ARROW.get(shape.name, pa.string())


def fitted(value: Any, shape: Shape) -> Any:
    """The value as `arrow_type(shape)` takes it."""
    if value is None:
        return None
    if shape.name == "list":
        assert shape.item is not None
        return [fitted(each, shape.item) for each in value]
    if shape.name == "struct":
        return {name: fitted(value.get(name), each) for name, each in shape.fields}
    if shape.name == "mixed" and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return float(value) if shape.name == "float" else value


def typed(text: str) -> Any:
    """A CSV cell of a carried column: a number or a truth value where its text would come back the same, else text.

    007, 1.10, 1e5 and 0.12345678901234567 are texts.
    """
    if text in ("true", "false"):
        return text == "true"
    if INTEGER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text) and sum(sign.isdigit() for sign in text.lower().partition("e")[0]) <= MAX_DIGITS:
        number = float(text)
        if repr(number) == text or not text.endswith("0"):
            return number
    return text


def _struct(fields: tuple[tuple[str, Shape], ...]) -> Shape:
    """Parquet has no structs without fields, and no use for endless ones."""
    shape = Shape("struct", fields=fields)
    return shape if 0 < _num_fields(shape) <= MAX_FIELDS else MIXED


def _num_fields(shape: Shape) -> int:
    inside = sum(_num_fields(each) for _, each in shape.fields)
    return len(shape.fields) + inside + (_num_fields(shape.item) if shape.item else 0)


def _text(value: str) -> Shape:
    if not is_text(value):
        raise BadCell(f"{quoted(value)}, which is not UTF-8", "text in UTF-8")
    return TEXT
