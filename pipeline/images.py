"""First frames: where a manifest's image cell points, whether it is a picture that can be used, and its bytes later.

Scaling and cropping to a clip's size are `model.images`'s.
"""

import hashlib
import io
import os
import posixpath
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from pipeline.cells import quoted
from pipeline.errors import ClipError, RenderError
from pipeline.store import StorageSettings, Store, key_problem, open_store, split_uri
from pipeline.types import ImageRef

NUM_READERS = 64  # reading is waiting
MIN_SIDE = 300
MAX_RATIO = 2.5
MAX_BYTES = 20_000_000
MAX_PIXELS = 64_000_000  # a small file can unpack to many gigabytes
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # Pillow knows more, some of which start other programs
EXIF_ORIENTATION = 0x0112
LYING = (5, 6, 7, 8)  # orientations that swap height and width

# What Pillow's readers raise for broken files.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class BadImage(RenderError):
    """An image cell that cannot be used, as the two halves of a finding."""

    def __init__(self, got: str, expected: str) -> None:
        self.got = got
        self.expected = expected
        super().__init__(f"got {got}, expected {expected}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.got, self.expected))


class ImageReader:
    """Looks at the images of a manifest, many at a time.

    Relative addresses are below the first folder; full ones may be below any of them.
    """

    def __init__(self, folders: Sequence[str], *, storage: StorageSettings) -> None:
        self._folders = [ImageFolder(store=open_store(folder, storage)) for folder in folders]

    def read_all(self, values: Sequence[str | bytes]) -> dict[str | bytes, ImageRef | BadImage]:
        """What each distinct value (an address or an image's own bytes) is, or why it cannot be used."""
        distinct = list(dict.fromkeys(values))
        with ThreadPoolExecutor(NUM_READERS) as pool:
            return dict(zip(distinct, pool.map(self._read, distinct), strict=True))

    def _read(self, value: str | bytes) -> ImageRef | BadImage:
        try:
            return inline_image(value) if isinstance(value, bytes) else self._folders[0].read(value)
        except BadImage as error:
            return error


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Where a manifest's images lie: its own folder, and nothing above it."""

    store: Store

    def key(self, uri: str) -> str:
        """The key of an image below this folder, from a relative or a full address. BadImage if it lies elsewhere."""
        path = uri.removeprefix("file://")
        root = self.store.uri.rstrip("/") + "/"
        relative = path.removeprefix(root)
        key = posixpath.normpath(relative)
        outside = relative.startswith("/") or "://" in relative or key == ".." or key.startswith("../")
        if outside or not relative or key == ".":
            raise BadImage(quoted(uri), f"a file below the manifest's own folder {root}")
        problem = key_problem(key)
        if problem:
            raise BadImage(quoted(uri), f"another name: {problem}")
        if "://" not in root and not Path(os.path.realpath(root + key)).is_relative_to(os.path.realpath(root)):
            raise BadImage(f"{quoted(uri)}, a link out of it", f"a file below the manifest's own folder {root}")
        return key

    def read(self, uri: str) -> ImageRef:
        """Reads and checks one image. BadImage if it is missing, broken or of the wrong size."""
        key = self.key(uri)
        size_bytes = self.store.head(key)
        if size_bytes is None:
            raise BadImage(quoted(uri), f"a file that is there ({self.store.where(key)} is not)")
        try:
            _check_bytes(size_bytes)
            data = self.store.get(key)
            height, width = image_size(data)
        except BadImage as error:
            raise BadImage(f"{quoted(uri)}, {error.got}", error.expected) from error
        return ImageRef(uri=self.store.where(key), data=None, identity=_sha256(data), height=height, width=width)


def inline_image(data: bytes) -> ImageRef:
    """An image that the manifest holds itself. BadImage as above."""
    _check_bytes(len(data))
    height, width = image_size(data)
    return ImageRef(uri=None, data=data, identity=_sha256(data), height=height, width=width)


def load_image(ref: ImageRef, *, storage: StorageSettings) -> bytes:
    """The bytes of a clip's image, wherever they are. ClipError if they have changed since the manifest was read."""
    if ref.data is not None:
        return ref.data
    assert ref.uri is not None
    root, key = split_uri(ref.uri)
    data = open_store(root, storage).get(key)
    if _sha256(data) != ref.identity:
        raise ClipError(f"{ref.uri} has changed since the manifest was read")
    return data


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width as shown (EXIF orientation applied). Decodes all of it; BadImage if it is unusable."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if image.getexif().get(EXIF_ORIENTATION) in LYING:
                width, height = height, width
            _check_size(height=height, width=width)
            image.load()
    except BROKEN as error:
        # Pillow's words for an unknown kind show an address in memory.
        reason = "of no known kind" if isinstance(error, UnidentifiedImageError) else error
        raise BadImage(f"{len(data)} bytes that do not decode ({reason})", "a whole " + _either(FORMATS)) from error
    return height, width


def _check_size(*, height: int, width: int) -> None:
    got = f"{width}x{height} pixels"
    if width * height > MAX_PIXELS:
        raise BadImage(got, f"at most {MAX_PIXELS // 1_000_000} megapixels")
    if min(height, width) < MIN_SIDE:
        raise BadImage(got, f"at least {MIN_SIDE} pixels a side")
    if max(height, width) > MAX_RATIO * min(height, width):
        raise BadImage(got, f"a ratio of width to height from 1:{MAX_RATIO} to {MAX_RATIO}:1")


def _check_bytes(size_bytes: int) -> None:
    if size_bytes > MAX_BYTES:
        raise BadImage(f"{size_bytes / 1e6:.1f} MB", f"at most {MAX_BYTES // 1_000_000} MB")


def _either(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " or " + names[-1]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
