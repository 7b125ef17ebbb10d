"""A manifest's row as a record says it: everything in it, fit for JSON, whatever Arrow type it has."""

import hashlib
import math
from typing import Any

import pyarrow as pa

from pipeline.redact import redacted
from pipeline.types import JsonDict


def said_row(data: pa.RecordBatch) -> JsonDict:
    """Of a batch of one row. Bytes, and text that is not UTF-8, become digest and size, secrets in addresses ***."""
    return {name: _json_safe(_as_py(data.column(n)[0])) for n, name in enumerate(data.schema.names)}


def _as_py(scalar: pa.Scalar) -> Any:
    """Moments that Python has no value for come as Arrow's text, text that is not UTF-8 as bytes.

    Such are nanoseconds, the year 10000 and time zones that nobody knows. It is used when a clip is rendered already:
    whatever can be read must get through.
    """
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.StructScalar):
        return {name: _as_py(value) for name, value in scalar.items()}
    if isinstance(scalar, (pa.ListScalar, pa.LargeListScalar, pa.FixedSizeListScalar)):  # maps are lists of pairs
        return [_as_py(value) for value in scalar.values]
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        while not hasattr(scalar, "as_buffer"):  # a dictionary's or an extension's
            scalar = scalar.value
        return scalar.as_buffer().to_pybytes()
    except (ValueError, OverflowError, LookupError):
        return _moment(scalar)


def _moment(scalar: pa.Scalar) -> str:
    try:
        return str(scalar.cast(pa.string()).as_py())
    except (pa.ArrowException, AttributeError):
        return f"{getattr(scalar, 'value', '')} {scalar.type}".lstrip()


def _json_safe(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return {"sha256": hashlib.sha256(value).hexdigest(), "size_bytes": len(value)}
    if isinstance(value, dict):
        return {str(key): _json_safe(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(each) for each in value]
    return str(value)
