"""What is kept of a manifest's rows once they are read: some seventy bytes each, in columns. No prompts, no files."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from model.shapes import ClipShape
from pipeline.types import Clip

NO_INPUT = -1


@dataclass(frozen=True, kw_only=True)
class ClipSize:
    """What many clips share: the words of the row and all sizes that follow from them."""

    resolution: str
    ratio: str
    duration_s: int
    shape: ClipShape


@dataclass(frozen=True, kw_only=True)
class RowIndex:
    """The selected rows in manifest order, one entry in every column. A position in it is not the row's number."""

    rows: np.ndarray  # int64: the row's number in the manifest, from 0
    ids: pa.LargeStringArray  # clip ids
    hashes: np.ndarray  # uint64: settings hashes
    seeds: np.ndarray  # int32
    size_codes: np.ndarray  # int32, into `sizes`
    image_codes: np.ndarray  # int32, into the manifest's images; NO_INPUT: text-to-video
    sound_codes: np.ndarray  # int32, into its given sounds; NO_INPUT: the sound is rendered
    steps: np.ndarray  # int16, of the first stage
    priorities: np.ndarray  # int32
    text_tokens: np.ndarray  # int32: of the prompt; a quarter of its bytes where those cannot be too many tokens
    audio: np.ndarray  # bool: with sound
    sizes: tuple[ClipSize, ...]

    def __len__(self) -> int:
        return int(self.rows.size)

    @property
    def size_bytes(self) -> int:
        """Memory that all columns take."""
        return int(self.ids.nbytes) + sum(each.nbytes for each in vars(self).values() if isinstance(each, np.ndarray))

    @property
    def has_image(self) -> np.ndarray:
        given: np.ndarray = self.image_codes != NO_INPUT
        return given

    def position(self, row: int) -> int:
        """Of a selected row's number."""
        return int(np.searchsorted(self.rows, row))

    def clip_id(self, position: int) -> str:
        return str(self.ids[position].as_py())

    def settings_hash(self, position: int) -> str:
        return f"{int(self.hashes[position]):016x}"

    def hash_texts(self) -> pa.Array:
        """All settings hashes as records are named by them."""
        digits = self.hashes.astype(">u8").tobytes().hex().encode()
        offsets = np.arange(len(self) + 1, dtype=np.int64) * 16
        return pa.LargeStringArray.from_buffers(len(self), pa.py_buffer(offsets.tobytes()), pa.py_buffer(digits))


@dataclass(kw_only=True)
class IndexBuilder:
    """Collects clips row by row; full chunks are kept as arrays, so that no Python objects stay."""

    _columns: dict[str, list[object]] = field(default_factory=lambda: {name: [] for name in (*DTYPES, "ids")})
    _chunks: dict[str, list[np.ndarray]] = field(default_factory=lambda: {name: [] for name in DTYPES})
    _ids: list[pa.Array] = field(default_factory=list)
    _sizes: dict[tuple[str, str, int], int] = field(default_factory=dict)
    _shapes: list[ClipShape] = field(default_factory=list)

    def add(self, clip: Clip, *, settings_hash: str, image_code: int, sound_code: int, text_tokens: int) -> None:
        size = (clip.resolution, clip.ratio, clip.duration_s)
        code = self._sizes.get(size)
        if code is None:
            code = self._sizes[size] = len(self._shapes)
            self._shapes.append(clip.shape)
        columns = self._columns
        columns["ids"].append(clip.clip_id)
        columns["rows"].append(clip.row)
        columns["hashes"].append(int(settings_hash, 16))
        columns["seeds"].append(clip.seed)
        columns["size_codes"].append(code)
        columns["image_codes"].append(image_code)
        columns["sound_codes"].append(sound_code)
        columns["steps"].append(clip.steps)
        columns["priorities"].append(clip.priority)
        columns["text_tokens"].append(text_tokens)
        columns["audio"].append(clip.audio)

    def pack(self) -> None:
        """Turns what was added into arrays; to be called once a batch."""
        for name, kind in DTYPES.items():
            self._chunks[name].append(np.array(self._columns[name], dtype=kind))
            self._columns[name].clear()
        self._ids.append(pa.array(self._columns["ids"], pa.large_string()))
        self._columns["ids"].clear()

    def build(self) -> RowIndex:
        self.pack()
        sizes = tuple(
            ClipSize(resolution=resolution, ratio=ratio, duration_s=duration_s, shape=shape)
            for (resolution, ratio, duration_s), shape in zip(self._sizes, self._shapes, strict=True)
        )
        columns = {name: np.concatenate(chunks) for name, chunks in self._chunks.items()}
        return RowIndex(ids=pa.concat_arrays(self._ids), sizes=sizes, **columns)


DTYPES: dict[str, type] = {
    "rows": np.int64,
    "hashes": np.uint64,
    "seeds": np.int32,
    "size_codes": np.int32,
    "image_codes": np.int32,
    "sound_codes": np.int32,
    "steps": np.int16,
    "priorities": np.int32,
    "text_tokens": np.int32,
    "audio": np.bool_,
}


def index_of(clips: Sequence[Clip], hashes: Sequence[str]) -> RowIndex:
    """Of clips that exist already, without codes of images and sounds: for plans of a few."""
    builder = IndexBuilder()
    for clip, settings_hash in zip(clips, hashes, strict=True):
        builder.add(clip, settings_hash=settings_hash, image_code=NO_INPUT, sound_code=NO_INPUT, text_tokens=0)
    return builder.build()
