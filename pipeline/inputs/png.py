"""PNG: size, orientation and packed metadata from the chunks before the picture; whole files chunk by chunk."""

import struct
import zlib

from pipeline.inputs.header import BadInput, Header, Source, check_unpacks, damaged, exactly, is_lying, moving, trailing

KIND = "PNG"
SIGNS = (b"\x89PNG\r\n\x1a\n",)
ENDING = bytes(4) + b"IEND\xaeB`\x82"
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # bits, by type of colour
XMP_NAME = b"XML:com.adobe.xmp\0"
MAX_READ = 1 << 20  # of one chunk of metadata
MAX_CHUNKS = 1000  # before the picture
MAX_ALL_CHUNKS = 100_000
PACKED = (b"iCCP", b"zTXt", b"iTXt")


def read_header(source: Source) -> Header:
    """Reads the first chunk and the metadata before the picture's own, unpacking no more than 1 MB of each."""
    kind, length = _chunk(source, 8)
    first = exactly(source, 8, 33 - 8, KIND)
    if (kind, length) != (b"IHDR", 13) or zlib.crc32(first[4:21]) != int.from_bytes(first[21:]):
        raise damaged(KIND, "its first chunk is wrong")
    width, height, depth, colour = struct.unpack(">IIBB", first[8:18])
    if depth not in DEPTHS.get(colour, ()):
        raise damaged(KIND, f"no such colours: type {colour} of {depth} bits")
    exif, xmp = _metadata(source, 33)
    return Header(height=height, width=width, lying=is_lying(exif, xmp, KIND))


def check_end(source: Source) -> None:
    """What can be said from the last bytes alone."""
    if source.read(max(0, source.size_bytes - len(ENDING)), source.size_bytes) != ENDING:
        raise damaged(KIND, "or something follows its end")


def check_whole(data: bytes) -> None:
    """Every chunk with its checksum, to the last byte."""
    view = memoryview(data)
    at = 8
    for _ in range(MAX_ALL_CHUNKS):
        kind = bytes(view[at + 4 : at + 8])
        stop = at + 12 + int.from_bytes(view[at : at + 4])
        if stop > len(data):
            raise damaged(KIND, f"it ends after {len(data)} bytes")
        if zlib.crc32(view[at + 4 : stop - 4]) != int.from_bytes(view[stop - 4 : stop]):
            raise damaged(KIND, f"a wrong checksum at byte {stop - 4}")
        _check_packed(kind, view[at + 8 : stop - 4])
        if kind == b"IEND":
            if stop != len(data):
                raise trailing(KIND, len(data) - stop)
            return
        at = stop
    raise BadInput(f"a {KIND} of more than {MAX_ALL_CHUNKS} chunks", "fewer of them")


def _chunk(source: Source, at: int) -> tuple[bytes, int]:
    lead = exactly(source, at, 8, KIND)
    return lead[4:], int.from_bytes(lead[:4])


def _metadata(source: Source, at: int) -> tuple[bytes, bytes]:
    """EXIF and XMP, each empty where there is none."""
    exif = xmp = b""
    for _ in range(MAX_CHUNKS):
        kind, length = _chunk(source, at)
        if kind == b"IDAT":
            return exif, xmp
        if kind == b"acTL":
            raise moving(KIND)
        if kind == b"IEND" or at + 12 + length > source.size_bytes:
            raise damaged(KIND, "it holds no picture")
        if kind in (*PACKED, b"eXIf"):
            if length > MAX_READ:
                raise BadInput(f"a {KIND} with {length} bytes of metadata in one piece", f"at most {MAX_READ}")
            data = exactly(source, at + 8, length, KIND)
            _check_packed(kind, memoryview(data))
            exif = data if kind == b"eXIf" else exif
            xmp = data if kind == b"iTXt" and data.startswith(XMP_NAME) else xmp
        at += 12 + length
    raise damaged(KIND, f"more than {MAX_CHUNKS} chunks before the picture")


def _check_packed(kind: bytes, data: memoryview) -> None:
    """BadInput if a chunk of metadata unpacks to too much. A name comes first, then flags, then what is packed."""
    if kind not in PACKED:
        return
    _, _, rest = bytes(data).partition(b"\0")
    if kind != b"iTXt":
        check_unpacks(rest[1:], KIND)
    elif rest[:1] == b"\1":  # packed; two more texts, each with a zero at its end, come before it
        check_unpacks(rest[2:].split(b"\0", 2)[-1], KIND)
