"""First frames: what a manifest's image cells are, looked at without decoding them, and their bytes later.

`check.py` knows what can be a first frame. Scaling and cropping to a clip's size are `model.images`'s.
"""

from pipeline.errors import ClipError
from pipeline.inputs.access import InputAccess, StoredObject
from pipeline.inputs.check import check_bytes, check_image, check_opens
from pipeline.inputs.files import ETAG, InputReader, absent, load_bytes, sha256
from pipeline.inputs.header import BadInput, Whole
from pipeline.redact import redacted
from pipeline.store import ObjectChanged, Part, StorageSettings, Store
from pipeline.types import ImageRef

__all__ = ["BadInput", "ImageReader", "load_image"]

HEAD_BYTES = 1 << 16
MAX_WINDOW_BYTES = 1 << 20


class ImageReader(InputReader[ImageRef]):
    """Of those in object storage only the header and the end are read."""

    def held(self, data: bytes, *, uri: str | None) -> ImageRef:
        return _ref(data, uri=uri)

    def look_at_object(self, place: StoredObject) -> ImageRef:
        return self.stored(self._places.store(place.root), place.key)  # it is not read whole

    def stored(self, store: Store, key: str) -> ImageRef:
        """From its first and last bytes, and more only where the header is longer."""
        part = store.get_part(key, 0, HEAD_BYTES)
        if part is None:
            raise absent(store.where(key))
        check_bytes(part.size_bytes)
        whole = len(part.data) == part.size_bytes
        try:
            height, width = check_image(Whole(part.data) if whole else _Ranged(store, key, part))
        except ObjectChanged as error:
            raise BadInput("which changes while it is looked at", "one that stays as it is") from error
        identity = f"{ETAG} {part.etag} {part.size_bytes}"
        return ImageRef(uri=store.where(key), data=None, identity=identity, height=height, width=width)


class _Ranged:
    """An object's bytes by growing windows, of which one is held at a time."""

    def __init__(self, store: Store, key: str, head: Part) -> None:
        self.size_bytes = head.size_bytes
        self._store, self._key, self._head = store, key, head
        self._start, self._window = 0, b""

    def read(self, start: int, stop: int, /) -> bytes:
        stop = min(stop, self.size_bytes)
        if start >= stop:
            return b""
        if stop <= len(self._head.data):
            return self._head.data[start:stop]
        if not self._start <= start <= stop <= self._start + len(self._window):
            ahead = min(MAX_WINDOW_BYTES, 2 * len(self._window) or HEAD_BYTES)
            part = self._store.get_part(self._key, start, max(stop, start + ahead), etag=self._head.etag)
            self._start, self._window = start, part.data if part else b""
        return self._window[start - self._start : stop - self._start]


def load_image(ref: ImageRef, *, storage: StorageSettings, access: InputAccess) -> bytes:
    """The bytes of a clip's image, wherever they are, if the rules allow it.

    ClipError if they cannot be had or used, or have changed since the manifest was read.
    """
    name = "the image" if ref.uri is None else redacted(ref.uri)
    try:
        data = load_bytes(ref, storage=storage, access=access)
        height, width = check_image(Whole(data))
        if (height, width) != (ref.height, ref.width):
            raise ObjectChanged(name)
        check_opens(data, height=height, width=width)
        return data
    except BadInput as error:
        raise ClipError(f"{name} cannot be used: {error}") from error
    except ObjectChanged as error:
        raise ClipError(f"{name} has changed since the manifest was read") from error


def _ref(data: bytes, *, uri: str | None) -> ImageRef:
    height, width = check_image(Whole(data))
    return ImageRef(uri=uri, data=None if uri is not None else data, identity=sha256(data), height=height, width=width)
