"""WebP: size, orientation and stillness from its chunks, which tile the file."""

from pipeline.inputs.header import Header, Source, Whole, damaged, exactly, is_lying, moving, trailing

KIND = "WebP"
SIGNS = (b"RIFF",)  # and WEBP four bytes later
MOVING = 0x02
MAX_CHUNKS = 100
MAX_READ = 1 << 20


def read_header(source: Source) -> Header:
    """The canvas and the picture in it must be of one size: decoders make room for the one and fill the other."""
    check_end(source)
    canvas: tuple[int, int] | None = None
    picture: tuple[int, int] | None = None
    exif = xmp = b""
    for kind, start, length in _chunks(source):
        if kind == b"VP8X" and canvas is None:
            lead = exactly(source, start, 10, KIND)
            if lead[0] & MOVING:
                raise moving(KIND)
            canvas = 1 + int.from_bytes(lead[7:10], "little"), 1 + int.from_bytes(lead[4:7], "little")
        elif kind in (b"ANIM", b"ANMF"):
            raise moving(KIND)
        elif kind in (b"VP8 ", b"VP8L") and picture is None:
            picture = _picture(kind, exactly(source, start, 10, KIND))
        elif kind == b"EXIF":
            exif = source.read(start, start + min(length, MAX_READ))
        elif kind == b"XMP ":
            xmp = source.read(start, start + min(length, MAX_READ))
    if picture is None or (canvas is not None and canvas != picture):
        raise damaged(KIND, "no picture, or one of another size than it says")
    return Header(height=picture[0], width=picture[1], lying=is_lying(exif, xmp, KIND))


def check_end(source: Source) -> None:
    """The file is as long as it says."""
    said = 8 + int.from_bytes(exactly(source, 4, 4, KIND), "little")
    said += said % 2
    if source.size_bytes < said:
        raise damaged(KIND, f"{source.size_bytes} bytes of {said}")
    if source.size_bytes > said:
        raise trailing(KIND, source.size_bytes - said)


def check_whole(data: bytes) -> None:
    """Chunks tile the file: `read_header` has walked them."""
    check_end(Whole(data))


def _chunks(source: Source) -> list[tuple[bytes, int, int]]:
    """(name, start, length) of each."""
    chunks = []
    at = 12
    while at < source.size_bytes:
        lead = exactly(source, at, 8, KIND)
        length = int.from_bytes(lead[4:], "little")
        chunks.append((lead[:4], at + 8, length))
        at += 8 + length + length % 2
        if at > source.size_bytes + length % 2 or len(chunks) > MAX_CHUNKS:
            raise damaged(KIND, f"its parts do not fit into {source.size_bytes} bytes")
    return chunks


def _picture(kind: bytes, lead: bytes) -> tuple[int, int]:
    """Height and width."""
    if kind == b"VP8 ":
        if lead[3:6] != b"\x9d\x01\x2a":
            raise damaged(KIND, "no first frame")
        return int.from_bytes(lead[8:10], "little") & 0x3FFF, int.from_bytes(lead[6:8], "little") & 0x3FFF
    if lead[0] != 0x2F:
        raise damaged(KIND, "no first frame")
    bits = int.from_bytes(lead[1:5], "little")
    return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
