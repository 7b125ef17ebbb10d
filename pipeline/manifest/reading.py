"""A table of prompts, read and checked whole before anything is started. All that is wrong is said at once.

The rows stream by in batches; what is kept of them is a `RowIndex`, and clips are built again from the files when they
are wanted.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
import pyarrow as pa

from pipeline.counting import counted
from pipeline.errors import ConfigError, StoreError
from pipeline.inputs.access import OWN_FOLDER, InputAccess
from pipeline.inputs.files import Ref
from pipeline.inputs.images import ImageReader
from pipeline.inputs.sounds import SoundReader
from pipeline.manifest.cells import COLUMNS, near_misses, read_cells
from pipeline.manifest.checking import ManifestChecker, Readers, no_hash
from pipeline.manifest.findings import Findings, findings_file
from pipeline.manifest.hashing import Hasher
from pipeline.manifest.index import NO_INPUT, RowIndex
from pipeline.manifest.inputs import with_bytes
from pipeline.manifest.rows import NOTHING, Rules
from pipeline.manifest.said import said_row
from pipeline.manifest.selection import EVERYTHING, Selection
from pipeline.manifest.tables import Batch, RowFinder, Source, open_source
from pipeline.store import StorageSettings
from pipeline.types import Clip, ImageRef, JsonDict, SoundRef

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GivenFiles:
    """The distinct files that cells name; those that the manifest holds itself without their bytes."""

    images: tuple[ImageRef, ...] = ()
    sounds: tuple[SoundRef, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A checked manifest: its selected rows, in order."""

    uri: str
    source: Source
    index: RowIndex
    given: GivenFiles = GivenFiles()
    rules: Rules
    hash_clip: Hasher
    selection: Selection = EVERYTHING

    def __len__(self) -> int:
        return len(self.index)

    @property
    def clips(self) -> "Clips":
        return Clips(self, np.arange(len(self)))

    @property
    def files(self) -> tuple[str, ...]:
        """The addresses it was read from."""
        return self.source.files

    @property
    def carried(self) -> tuple[str, ...]:
        """Columns that say nothing to us and come back in the results."""
        return tuple(name for name in self.source.schema.names if name not in COLUMNS)

    def is_read_from(self, address: str) -> bool:
        """Whether this object, perhaps by another name for its folder, is one of the manifest's files."""
        return _real(address) in {_real(file) for file in self.files}

    def settings_hash(self, clip: Clip) -> str:
        return self.index.settings_hash(self.index.position(clip.row))

    def row(self, clip: Clip) -> JsonDict:
        """The clip's whole row, fit for JSON: bytes, and text that is not UTF-8, become digest and size."""
        batch = self._whole_rows.find(clip.row)
        return said_row(batch.data.slice(clip.row - batch.first_row, 1))

    def batches(self) -> Iterator[tuple[range, pa.RecordBatch]]:
        """The selected rows with all their columns, streamed again: positions in the index, and the rows at them."""
        for batch in self.source.batches():
            positions = self._positions(batch)
            if len(positions):
                yield (
                    positions,
                    _chosen(batch.data, self.index.rows[positions.start : positions.stop] - batch.first_row),
                )

    def clip(self, position: int) -> Clip:
        """Built from its row again. StoreError if that has changed."""
        (built,) = self._built(self._known_rows.find(int(self.index.rows[position])), [position])
        return built

    def load(self, positions: Sequence[int] | np.ndarray) -> list[Clip]:
        """Many clips in the order asked for, read in that of the manifest."""
        wanted = np.asarray(positions, np.int64)
        order = np.argsort(wanted, kind="stable")
        clips: list[Clip] = [None] * len(wanted)  # type: ignore[list-item]
        for place, clip in zip(order, self._stream(wanted[order]), strict=True):
            clips[place] = clip
        return clips

    def _stream(self, wanted: np.ndarray) -> Iterator[Clip]:
        """`wanted` positions rise."""
        if not len(wanted):
            return
        start, last = (int(self.index.rows[wanted[end]]) for end in (0, -1))
        for batch in self.source.batches(self._known, start=start):
            positions = self._positions(batch)
            first, end = np.searchsorted(wanted, (positions.start, positions.stop))
            if first < end:
                yield from self._built(batch, wanted[first:end].tolist())
            if batch.end > last:
                return

    def _positions(self, batch: Batch) -> range:
        first, end = np.searchsorted(self.index.rows, (batch.first_row, batch.end))
        return range(int(first), int(end))

    def _built(self, batch: Batch, positions: Sequence[int]) -> Iterator[Clip]:
        """Positions rise, and are of rows of the batch."""
        rows = self.index.rows[positions].tolist()
        data = batch.data.slice(rows[0] - batch.first_row, rows[-1] - rows[0] + 1)
        cells = read_cells(data, self._known, Findings())
        for row, position in zip(rows, positions, strict=True):
            given = NOTHING | {name: cells[name][row - rows[0]] for name in self._known}
            clip = self.rules.clip(
                row,
                given,
                image=_named(self.given.images, int(self.index.image_codes[position]), given["image"]),
                sound=_named(self.given.sounds, int(self.index.sound_codes[position]), given["audio_in"]),
                clip_id=self.index.clip_id(position),
            )
            if int(self.hash_clip(clip), 16) != int(self.index.hashes[position]):
                raise StoreError(f"row {clip.row} of {self.uri} has changed since it was read; start again")
            yield clip

    @cached_property
    def _known(self) -> tuple[str, ...]:
        return tuple(name for name in COLUMNS if name in self.source.schema.names)

    @cached_property
    def _known_rows(self) -> RowFinder:
        return RowFinder(self.source, self._known)

    @cached_property
    def _whole_rows(self) -> RowFinder:
        return RowFinder(self.source)


class Clips(Sequence[Clip]):
    """Clips of a manifest, built when they are asked for; iterating reads the files once, if the positions rise."""

    def __init__(self, manifest: Manifest, positions: np.ndarray) -> None:
        self._manifest, self._positions = manifest, positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, place: int) -> Clip: ...
    @overload
    def __getitem__(self, place: slice) -> "Clips": ...
    def __getitem__(self, place: int | slice) -> "Clip | Clips":
        if isinstance(place, slice):
            return Clips(self._manifest, self._positions[place])
        return self._manifest.clip(int(self._positions[place]))

    def __iter__(self) -> Iterator[Clip]:
        if np.all(self._positions[1:] > self._positions[:-1]):
            return self._manifest._stream(self._positions)
        return iter(self._manifest.load(self._positions))


def read_manifest(
    uri: str,
    *,
    storage: StorageSettings,
    rules: Rules,
    hash_clip: Hasher = no_hash,
    selection: Selection = EVERYTHING,
    folder: str | None = None,
    access: InputAccess = OWN_FOLDER,
    findings: str | None = None,
) -> Manifest:
    """Reads and checks the selected rows. ManifestError lists all findings; `findings`: where they go as Parquet.

    Relative images and sounds are looked for in `folder`; None: beside each file. `access` says what else may be read.
    Of rows that are not selected nothing is checked, but their ids are made: a row's name does not depend on the
    selection.
    """
    source = open_source(uri, storage=storage)
    if findings is not None and _real(findings) in {_real(file) for file in source.files}:
        raise ConfigError(f"findings={findings} would replace the manifest; name another file")
    with findings_file(findings, storage) as file:
        found = Findings(file)
        index, given = check_manifest(
            source,
            storage=storage,
            rules=rules,
            findings=found,
            hash_clip=hash_clip,
            selection=selection,
            folder=folder,
            access=access,
        )
    found.raise_if_any(uri)
    manifest = Manifest(
        uri=uri,
        source=source,
        index=index,
        given=given,
        rules=rules,
        hash_clip=hash_clip,
        selection=selection,
    )
    log.info("%s: %s, carried columns: %s", uri, counted(len(manifest), "clip"), ", ".join(manifest.carried) or "none")
    return manifest


def check_manifest(
    source: Source,
    *,
    storage: StorageSettings,
    rules: Rules,
    findings: Findings,
    hash_clip: Hasher = no_hash,
    selection: Selection = EVERYTHING,
    folder: str | None = None,
    access: InputAccess = OWN_FOLDER,
) -> tuple[RowIndex, GivenFiles]:
    """The index of the rows that are right, and their images and sounds; what is wrong goes into `findings`."""
    _warn_of_near_misses(source)
    _check_filter(selection, source)
    checker = ManifestChecker(
        schema=source.schema,
        rules=rules,
        hash_clip=hash_clip,
        selection=selection,
        findings=findings,
        readers=Readers(
            images=lambda beside: ImageReader([folder or beside], storage=storage, access=access),
            sounds=lambda beside: SoundReader([folder or beside], storage=storage, access=access),
        ),
    )
    if checker.has_prompts:
        for batch in source.batches(checker.columns):
            checker.check(batch)
            if checker.is_full:
                break
    return checker.finish(), GivenFiles(images=tuple(checker.images.refs), sounds=tuple(checker.sounds.refs))


def _warn_of_near_misses(source: Source) -> None:
    for name, near in near_misses(source.schema.names).items():
        log.warning("column %s is carried and says nothing; was %s meant?", name, near)


def _check_filter(selection: Selection, source: Source) -> None:
    unknown = sorted(selection.columns - set(source.schema.names))
    if unknown:
        have = ", ".join(source.schema.names)
        raise ConfigError(f"where={selection.where}: no column {', '.join(unknown)} (there are: {have})")


def _chosen(data: pa.RecordBatch, offsets: np.ndarray) -> pa.RecordBatch:
    """Rows of a batch by their rising offsets; Arrow's own `take` does not know every type."""
    if len(offsets) == data.num_rows:
        return data
    runs = np.split(offsets, np.flatnonzero(np.diff(offsets) != 1) + 1)
    return pa.concat_batches([data.slice(int(run[0]), len(run)) for run in runs])


def _named(refs: Sequence[Ref], code: int, cell: object) -> Ref | None:
    return None if code == NO_INPUT else with_bytes(refs[code], cell)


def _real(address: str) -> str:
    return address if "://" in address else os.path.realpath(address)
