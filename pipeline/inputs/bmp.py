"""BMP: everything is in its first bytes."""

import struct

from pipeline.inputs.header import BadInput, Header, Source, Whole, damaged, exactly, trailing

KIND = "BMP"
SIGNS = (b"BM",)
OLD, LEAST = 12, 40  # lengths of the second header: OS/2's, and from Windows' on
PLAIN, MASKED = 0, 3  # how pixels may be stored; 1 and 2 are run lengths, others hold whole files of other kinds
DEPTHS = (1, 4, 8, 16, 24, 32)


def read_header(source: Source) -> Header:
    """BadInput also if the pixels that it promises are not there."""
    lead = exactly(source, 0, 26, KIND)
    start, length = struct.unpack_from("<II", lead, 10)
    if length == OLD:
        width, height, depth, packing = (*struct.unpack_from("<HH2xH", lead, 18), PLAIN)
    elif LEAST <= length <= 124:
        width, height, depth, packing = struct.unpack("<ii2xHI", exactly(source, 18, 16, KIND))
    else:
        raise damaged(KIND, "no such header")
    if packing > MASKED or depth not in DEPTHS:
        raise BadInput(f"a {KIND} of a rare kind (type {packing}, {depth} bits)", "a plain one")
    height = abs(height)  # negative: from the top down
    row = (width * depth + 31) // 32 * 4
    if width <= 0 or (packing in (PLAIN, MASKED) and start + row * height > source.size_bytes):
        raise damaged(KIND, f"{source.size_bytes} bytes of {start + row * height}")
    return Header(height=height, width=width)


def check_end(source: Source) -> None:
    """The file is as long as it says."""
    said = int.from_bytes(exactly(source, 2, 4, KIND), "little")
    if source.size_bytes < said:
        raise damaged(KIND, f"{source.size_bytes} bytes of {said}")
    if source.size_bytes > said:
        raise trailing(KIND, source.size_bytes - said)


def check_whole(data: bytes) -> None:
    check_end(Whole(data))
