"""The sizes that a Parquet file's footer gives, read by ourselves: pyarrow aborts the process where they are damaged.

Thrift's compact protocol, as far as footers use it. The data itself is read by pyarrow, which answers with errors.
"""

from dataclasses import dataclass
from typing import Any

MAGIC = b"PAR1"
TAIL_BYTES = 8  # of the footer's length and the magic
MAX_DEPTH = 12
BYTE_ARRAY = 6
DICTIONARIES = (2, 8)  # numbers of encodings
DELTA_BYTE_ARRAY = 7


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One leaf column of one row group."""

    path: str
    num_values: int
    packed_bytes: int  # compressed
    coded_bytes: int  # unpacked, still encoded
    is_bytes: bool
    has_dictionary: bool
    has_deltas: bool  # each value may hold the one before


def footer_bytes(tail: bytes) -> int:
    """How long the footer is, without its tail. ValueError if it is none that can be read."""
    if len(tail) != TAIL_BYTES or tail[4:] != MAGIC:
        raise ValueError("no Parquet magic bytes at the end")
    return int.from_bytes(tail[:4], "little")


def read_chunks(footer: bytes) -> list[list[Chunk]]:
    """For each row group its leaf columns. ValueError for a damaged footer."""
    try:
        groups = _Reader(footer).struct().get(4, [])
        return [[_chunk(column[3]) for column in group[1]] for group in groups]
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("a footer that is damaged") from error


def _chunk(column: dict[int, Any]) -> Chunk:
    encodings = column[2]
    numbers = (column[5], column[6], column[7])
    if not all(isinstance(each, int) and each >= 0 for each in numbers):
        raise ValueError("sizes below zero in its footer")
    return Chunk(
        path=".".join(part.decode() for part in column[3]),
        num_values=numbers[0],
        coded_bytes=numbers[1],
        packed_bytes=numbers[2],
        is_bytes=column[1] == BYTE_ARRAY,
        has_dictionary=any(each in DICTIONARIES for each in encodings),
        has_deltas=DELTA_BYTE_ARRAY in encodings,
    )


class _Reader:
    """Structs become dictionaries by field number. Every value takes a byte or more: lists are as long at most."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > MAX_DEPTH:
            raise ValueError("a footer that is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 8:
            return self._take(self._unsigned())
        if kind in (9, 10):
            return self._list(depth)
        if kind == 12:
            return self.struct(depth + 1)
        if kind in (1, 2, 3):  # truth values take a byte in lists
            return self._byte()
        if kind == 7:
            return self._take(8)
        raise ValueError("a footer with a value of no known kind")

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size = head >> 4 if head >> 4 != 15 else self._unsigned()
        if size > len(self._data) - self._at:
            raise ValueError("a footer that ends too early")
        return [self._value(head & 15, depth + 1) for _ in range(size)]

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise ValueError("a footer that ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def _unsigned(self) -> int:
        number = shift = 0
        while (byte := self._byte()) & 128:
            number |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a footer with a number that is too long")
        return number | byte << shift

    def _signed(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)
