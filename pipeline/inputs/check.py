"""Whether an image can be a first frame: the limits, and which reader knows its kind. Decodes nothing."""

import io
import struct
import zlib
from types import ModuleType

from PIL import Image

from pipeline.inputs import bmp, jpeg, png, webp
from pipeline.inputs.header import BadInput, Source, Whole

MIN_SIDE = 300
MAX_RATIO = 2.5
MAX_BYTES = 20_000_000
MAX_PIXELS = 64_000_000  # a small file can unpack to many gigabytes
KINDS = (jpeg, png, webp, bmp)
PILLOW_ERRORS = (  # what its readers raise for broken files
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
NAMES = "JPEG, PNG, WebP or BMP"


def check_image(source: Source) -> tuple[int, int]:
    """Height and width as shown. BadInput if it is of no known kind, too large or small, or does not end as it should.

    Of a `Whole` every part is looked at; of others only the header and the end.
    """
    check_bytes(source.size_bytes)
    kind = _kind(source)
    header = kind.read_header(source)
    _check_size(height=header.height, width=header.width)
    if isinstance(source, Whole):
        kind.check_whole(source.data)
    else:
        kind.check_end(source)
    return (header.width, header.height) if header.lying else (header.height, header.width)


def check_bytes(size_bytes: int) -> None:
    if size_bytes > MAX_BYTES:
        raise BadInput(f"{size_bytes / 1e6:.1f} MB", f"at most {MAX_BYTES // 1_000_000} MB")


def check_opens(data: bytes, *, height: int, width: int) -> None:
    """BadInput if Pillow sees another picture in the bytes than we do, or none. It decodes nothing yet."""
    try:
        with Image.open(io.BytesIO(data), formats=[_kind(Whole(data)).KIND.upper()]) as image:
            size = image.size
    except PILLOW_ERRORS as error:
        raise BadInput(f"{len(data)} bytes that do not open ({error})", "a whole image") from error
    if size not in ((width, height), (height, width)):
        raise BadInput(f"a picture of {size[0]}x{size[1]} pixels", f"{width}x{height} as its header says")


def _kind(source: Source) -> ModuleType:
    lead = source.read(0, 12)
    for kind in KINDS:
        if lead.startswith(kind.SIGNS) and (kind is not webp or lead[8:] == b"WEBP"):
            return kind
    raise BadInput(f"{source.size_bytes} bytes of no known kind", f"a {NAMES}")


def _check_size(*, height: int, width: int) -> None:
    got = f"{width}x{height} pixels"
    if width * height > MAX_PIXELS:
        raise BadInput(got, f"at most {MAX_PIXELS // 1_000_000} megapixels")
    if min(height, width) < MIN_SIDE:
        raise BadInput(got, f"at least {MIN_SIDE} pixels a side")
    if max(height, width) > MAX_RATIO * min(height, width):
        raise BadInput(got, f"a ratio of width to height from 1:{MAX_RATIO} to {MAX_RATIO}:1")
