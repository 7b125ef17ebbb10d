"""The names that exported files get: a pattern of columns, filled for each clip. Pure; what is unsafe is refused.

A name is a path below the target, `/` between its parts. Only the pattern makes folders: a cell with `/` is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from string import Formatter

from pipeline.errors import ConfigError
from pipeline.store import key_problem

CLIP_ID, KIND = "clip_id", "kind"  # ours, whatever columns the table has
ATTEMPT = "attempt"  # the same of all=true
MAX_NAME_BYTES = 700  # S3 takes 1,024 with the prefix in front
NOT_EVERYWHERE = '<>:"|?*\\'  # signs that some file systems refuse
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")  # names of devices on Windows
WIDTH = re.compile(r"0?\d{1,2}d?")


@dataclass(frozen=True)
class Field:
    """A column's place in a pattern, and how wide its number is to be: `04`, or "" for as it is."""

    column: str
    width: str


@dataclass(frozen=True)
class Pattern:
    """`{shot:04}/{clip_id}.{kind}`, taken apart."""

    text: str
    parts: tuple[str | Field, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.column for part in self.parts if isinstance(part, Field)))

    def fill(self, values: Mapping[str, object]) -> str:
        """A name. ValueError that says why there is none, or why it is not safe."""
        name = "".join(part if isinstance(part, str) else _cell(part, values) for part in self.parts)
        problem = name_problem(name)
        if problem:
            raise ValueError(f"{name!r} is not a safe name: {problem}")
        return name


def parse_pattern(text: str) -> Pattern:
    """ConfigError that says what is wrong with it."""
    parts: list[str | Field] = []
    try:
        for literal, column, width, conversion in Formatter().parse(text):
            parts += [literal] if literal else []
            if column is None:
                continue
            if not column or conversion:
                raise ValueError("expected a column's name in braces, such as {clip_id}")
            if width and not WIDTH.fullmatch(width):
                raise ValueError(f"{width!r} behind {column} is no width such as 04")
            parts.append(Field(column, width or ""))
    except ValueError as error:
        raise ConfigError(f"name={text}: {error}") from error
    return Pattern(text, tuple(parts))


def name_problem(name: str) -> str | None:
    """Why a name is not safe on every disk and in every bucket; None if it is."""
    found = [sign for sign in NOT_EVERYWHERE if sign in name]
    if found:
        return f"it holds {' '.join(found)}"
    if len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        return f"it is longer than {MAX_NAME_BYTES} bytes"
    return key_problem(name) or next(filter(None, map(_part_problem, name.split("/"))), None)


def _part_problem(part: str) -> str | None:
    if part.startswith("."):
        return "a part of it begins with a full stop and would be hidden"
    if part != part.strip(" ") or part.endswith("."):
        return "a part of it begins with a space, or ends with one or with a full stop"
    return f"{part} is a device's name on some systems" if RESERVED.match(part) else None


def _cell(field: Field, values: Mapping[str, object]) -> str:
    if field.column not in values:
        raise ValueError(f"it has no column {field.column}")
    value = values[field.column]
    if value is None or value == "":
        raise ValueError(f"column {field.column} is empty")
    if field.width:
        if type(value) is not int:
            raise ValueError(f"column {field.column}: got {value!r}, expected a whole number for {field.width}")
        return format(value, field.width)
    text = plain_text(value)
    if text is None:
        raise ValueError(f"column {field.column}: got {type(value).__name__}, expected text, a number or a date")
    if "/" in text:
        raise ValueError(f"column {field.column}: {text!r} holds a /")
    return text


def plain_text(value: object) -> str | None:
    """A cell as text, the same in names and in CSV; None where it is not one value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, int | float | Decimal):
        return str(value)
    return value.isoformat() if isinstance(value, date) else None  # moments are dates too
