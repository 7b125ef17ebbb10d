"""Plain values -> frozen dataclasses, strictly: the one conversion, at the edge. Below it nobody sees a dictionary."""

import dataclasses
import json
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jobs.words import nearest
from pipeline.errors import ConfigError

Kind = TypeVar("Kind")
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def build(kind: type[Kind], values: object, *, at: str) -> Kind:
    """A `kind` (a dataclass) from a table of its fields; `at` is the table's own key, "" at the root.

    Raises ConfigError that names the key, what was got and what was expected.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{at}: got {_shown(values)}, expected a table")
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    prefix = f"{at}." if at else ""
    for name in values:
        if name not in fields:
            near = nearest(str(name), fields)
            meant = f"; the nearest known one is {prefix}{near}" if near else ""
            raise ConfigError(f"unknown key {prefix}{name}{meant}")
    for name, field in fields.items():
        optional = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
        if name not in values and not optional:
            raise ConfigError(f"{prefix}{name} is missing, expected {_named(hints[name])}")
    converted = {str(name): _convert(value, hints[name], f"{prefix}{name}") for name, value in values.items()}
    try:
        return kind(**converted)
    except ValueError as error:  # a dataclass checks its own rules
        raise ConfigError(f"{at}: {error}" if at else str(error)) from error


def _convert(value: Any, hint: Any, key: str, *, expected: str = "") -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        return build(hint, value, at=key)  # type: ignore[arg-type]
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return _convert(value, inner, key, expected=_named(hint))
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(item, arguments[0], f"{key}[{n}]") for n, item in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {str(name): _convert(item, arguments[1], f"{key}.{name}") for name, item in value.items()}
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if hint in _PLAIN and hint is not float and type(value) is hint:
        return value
    raise ConfigError(f"{key}: got {_shown(value)}, expected {expected or _named(hint)}")


def _shown(value: object) -> str:
    """As it would be typed or stand in YAML: null, true, "text"."""
    return json.dumps(value, ensure_ascii=False, default=repr)


def _named(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join("null" if argument is NoneType else _named(argument) for argument in arguments)
    if origin is Literal:
        return f"one of {', '.join(a if isinstance(a, str) else _shown(a) for a in arguments)}"
    if origin is tuple:
        return "a list"
    return _PLAIN.get(hint, "a table")
