"""What is known of an image without decoding it: its kind, size and which way up, and that it ends where it should.

Each kind has a file of its own (`jpeg.py`, ...); this one holds what they share. Nothing here reads more than
it asks a `Source` for.
"""

import re
import struct
import zlib
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import RenderError

MAX_METADATA = 1 << 20  # bytes that a packed colour profile or text may unpack to; Pillow's own limit
ORIENTATION = 0x0112
LYING = (5, 6, 7, 8)  # orientations that swap height and width
TIFF = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">", b"MM*\0": ">", b"II\0*": "<"}
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
WHOLE = "a whole one"


class BadInput(RenderError):
    """An image or sound that cannot be used, as the two halves of a finding; `got` is empty where there is nothing."""

    def __init__(self, got: str, expected: str) -> None:
        self.got = got
        self.expected = expected
        super().__init__(f"got {got}, expected {expected}" if got else f"expected {expected}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.got, self.expected))


class Source(Protocol):
    """An image's bytes, to be had by ranges; what lies beyond the end is left out."""

    @property
    def size_bytes(self) -> int: ...

    def read(self, start: int, stop: int, /) -> bytes: ...


@dataclass(frozen=True)
class Whole:
    """An image's bytes that are in memory already."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def read(self, start: int, stop: int, /) -> bytes:
        return self.data[start:stop]


@dataclass(frozen=True, kw_only=True)
class Header:
    """Size in pixels as stored, and whether the picture is shown lying on its side."""

    height: int
    width: int
    lying: bool = False


def exactly(source: Source, start: int, count: int, kind: str) -> bytes:
    """`count` bytes. BadInput if the image ends before."""
    data = source.read(start, start + count)
    if len(data) != count:
        raise damaged(kind, f"it ends after {source.size_bytes} bytes")
    return data


def damaged(kind: str, why: str) -> BadInput:
    return BadInput(f"a {kind} that is cut off or damaged ({why})", WHOLE)


def trailing(kind: str, count: int) -> BadInput:
    """What follows a picture's end may be a program or an archive: pictures do not need it."""
    return BadInput(f"a {kind} with {count} bytes after its end", "nothing there (save it again to be rid of it)")


def moving(kind: str) -> BadInput:
    return BadInput(f"a moving {kind}", "a still picture")


def is_lying(exif: bytes, xmp: bytes, kind: str) -> bool:
    """Whether height and width are swapped when shown: EXIF's word, else XMP's. BadInput if the EXIF is none."""
    orientation = _exif_orientation(exif, kind) if exif else None
    if orientation is None:
        found = XMP_ORIENTATION.search(xmp)
        orientation = int(found[1]) if found else 1
    return orientation in LYING


def _exif_orientation(exif: bytes, kind: str) -> int | None:
    tiff = exif.removeprefix(b"Exif\0\0")
    order = TIFF.get(tiff[:4])
    if order is None:
        raise damaged(kind, "its EXIF block is none")
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for at in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, form = struct.unpack_from(f"{order}HH", tiff, at)
            if tag == ORIENTATION:
                (value,) = struct.unpack_from(order + ("I" if form == 4 else "H"), tiff, at + 8)
                return int(value)
    except struct.error:  # as lenient as Pillow: the picture is shown as it is stored
        return None
    return None


def check_unpacks(packed: bytes, kind: str) -> None:
    """BadInput if metadata unpacks to more than 1 MB; no more than that is ever unpacked."""
    try:
        size = len(zlib.decompressobj().decompress(packed, MAX_METADATA + 1))
    except zlib.error:
        return  # Pillow ignores it
    if size > MAX_METADATA:
        raise BadInput(f"a {kind} with metadata that unpack to more than 1 MB", "less of them")
