"""JPEG: size and orientation from the segments before the picture; whole files are walked to their last byte."""

import re
import struct

from pipeline.inputs.header import BadInput, Header, Source, Whole, damaged, exactly, is_lying, trailing

KIND = "JPEG"
SIGNS = (b"\xff\xd8\xff",)
FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; the others are arithmetic, lossless, hierarchical
NO_FRAMES = (0xC4, 0xC8, 0xCC)  # their neighbours that begin no frame
START, END, SCAN, EXIF_OR_XMP = 0xD8, 0xD9, 0xDA, 0xE1
ENDING = b"\xff\xd9"
XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"
MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)  # within a scan: not a stuffed byte, not a restart
SEGMENT = re.compile(rb"\xff{1,16}([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
MAX_SEGMENTS = 2000  # before the size
MAX_SCANS = 100  # a progressive picture has about ten; thousands keep a decoder busy for hours
MAX_PADDING = 32  # zeros at the end, as some cameras write them


def read_header(source: Source) -> Header:
    """Reads segments until the one that says the size, however long the metadata before it are."""
    at = 2
    exif = xmp = b""
    for _ in range(MAX_SEGMENTS):
        code, start, stop = _segment(source, at)
        if code == EXIF_OR_XMP:
            data = exactly(source, start, stop - start, KIND)
            exif = exif or (data if data.startswith(b"Exif\0\0") else b"")
            xmp = xmp or (data if data.startswith(XMP_NAME) else b"")
        elif 0xC0 <= code <= 0xCF and code not in NO_FRAMES:
            return _frame(source, code, start, lying=is_lying(exif, xmp, KIND))
        elif code in (SCAN, END):
            raise damaged(KIND, "its size is nowhere")
        at = stop
    raise damaged(KIND, f"more than {MAX_SEGMENTS} segments before its size")


def check_end(source: Source) -> None:
    """What can be said from the last bytes alone."""
    if not source.read(max(0, source.size_bytes - MAX_PADDING - 2), source.size_bytes).rstrip(b"\0").endswith(ENDING):
        raise damaged(KIND, "or something follows its end")


def check_whole(data: bytes) -> None:
    """Every segment and scan to the last byte. Several pictures may follow each other: telephones add small ones."""
    at = 0
    while True:
        at = _picture_end(data, at)
        rest = data[at:].lstrip(b"\0")
        if not rest:
            return
        at = len(data) - len(rest)
        if not rest.startswith(SIGNS):
            raise trailing(KIND, len(rest))


def _segment(source: Source, at: int) -> tuple[int, int, int]:
    """(marker, start and end of what it holds) of the segment at a byte; 0xFF may be repeated before a marker."""
    found = SEGMENT.match(source.read(at, at + 20))
    if found is None:
        raise damaged(KIND, f"no segment at byte {at} of {source.size_bytes}")
    start = at + found.end(1)
    if found[1] == b"\xd9":
        return END, start, start
    length = int.from_bytes(exactly(source, start, 2, KIND))
    if length < 2:
        raise damaged(KIND, f"no segment at byte {at}")
    return found[1][0], start + 2, start + length


def _frame(source: Source, code: int, start: int, *, lying: bool) -> Header:
    depth, height, width, channels = struct.unpack(">BHHB", exactly(source, start, 6, KIND))
    if code not in FRAMES or depth != 8 or channels not in (1, 3, 4):
        expected = "a baseline or progressive one, 8 bits deep, grey, colour or CMYK"
        raise BadInput(f"a {KIND} of a rare kind (type {code - 0xC0}, {depth} bits, {channels} channels)", expected)
    return Header(height=height, width=width, lying=lying)


def _picture_end(data: bytes, at: int) -> int:
    """The byte after the end of the picture that begins at one."""
    source = Whole(data)
    at += 2
    scans = 0
    while True:
        code, _, at = _segment(source, at)
        if code == END:
            return at
        if code == SCAN:
            scans += 1
            if scans > MAX_SCANS:
                raise BadInput(f"a {KIND} of more than {MAX_SCANS} scans", "fewer of them")
            found = MARKER.search(data, at)
            if found is None:
                raise damaged(KIND, "it has no end")
            at = found.start()
