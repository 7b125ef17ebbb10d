"""A cell of CSV or JSON as what its manifest column holds. What cannot be taken for that is said, never made null."""

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from pipeline.convert.rows import is_text, parse_json
from pipeline.manifest.cells import Kind, quoted

INTEGER = re.compile(r"[+-]?[0-9]{1,19}(\.0+)?")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
FLAGS = {"true": True, "yes": True, "y": True, "t": True, "on": True, "1": True} | {
    "false": False,
    "no": False,
    "n": False,
    "f": False,
    "off": False,
    "0": False,
}
DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
INT64 = 2**63


class BadCell(ValueError):
    """A cell that cannot be taken for what its column holds, as the two halves of a finding."""

    def __init__(self, got: str, expected: str) -> None:
        self.got = got
        self.expected = expected
        super().__init__(f"got {got}, expected {expected}")


def parse_cell(kind: Kind, value: Any) -> Any:
    """None stays None. A media cell is an address or {bytes, path}. BadCell if the value cannot be taken."""
    if value is None:
        return None
    if isinstance(value, str) and not is_text(value):
        raise BadCell(f"{quoted(value)}, which is not UTF-8", "text in UTF-8")
    return PARSERS[kind](value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise BadCell(quoted(value), "text")


def _integer(value: Any) -> int | None:
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        number = int(text.partition(".")[0]) if INTEGER.fullmatch(text) else None
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    else:
        number = value if type(value) is int else None
    if number is None or not -INT64 <= number < INT64:
        raise BadCell(quoted(value), "an integer")
    return number


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        if not value.strip():
            return None
        if NUMBER.fullmatch(value.strip()):
            return float(value)
    elif type(value) in (int, float) and abs(value) < 1e300:
        return float(value)
    raise BadCell(quoted(value), "a number")


def _flag(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, str | int) else None
    if text == "":
        return None
    if text not in FLAGS:
        raise BadCell(quoted(value), "true or false")
    return FLAGS[text]


def _media(value: Any) -> str | dict[str, Any]:
    if isinstance(value, str):
        if match := DATA_URL.match(value):
            return {"bytes": _bytes(value[match.end() :]), "path": None}
        value = _embedded(value)
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"} and value:
        data, path = value.get("bytes"), value.get("path")
        if isinstance(path, str | None) and isinstance(data, str | None) and is_text(path or ""):
            return {"bytes": None if data is None else _bytes(data), "path": path}
    raise BadCell(quoted(value), "an address, a data: URL, or an object of bytes (in base64) and path")


def _embedded(text: str) -> Any:
    """CSV holds an object as its JSON text."""
    if not text.startswith("{"):
        return text
    try:
        return parse_json(text)
    except ValueError:
        return text


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadCell(f"{quoted(text)}, which is not base64 ({error})", "bytes in base64") from error


PARSERS: dict[Kind, Callable[[Any], Any]] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "flag": _flag,
    "media": _media,
}
