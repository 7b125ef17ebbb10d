"""Puts a manifest's rows, batch by batch, through all checks, and keeps of each what its clip's plan needs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipeline.images.reading import BadImage, ImageReader
from pipeline.manifest.cells import Cells, quoted, read_cells, usable_columns
from pipeline.manifest.findings import Findings
from pipeline.manifest.hashing import Hasher
from pipeline.manifest.ids import SAFE_ID, SAFE_ID_WORDS, IdBook
from pipeline.manifest.index import NO_IMAGE, IndexBuilder, RowIndex
from pipeline.manifest.rows import NOTHING, Given, RowChecker, Rules
from pipeline.manifest.selection import EVERYTHING, Selection
from pipeline.manifest.tables import Batch
from pipeline.types import Clip, ImageRef


def no_hash(clip: Clip) -> str:
    """For manifests that are checked and not rendered."""
    return "0" * 16


class ManifestChecker:
    """`check` takes the batches in order, `finish` gives the index; what is wrong is in `findings`."""

    def __init__(
        self,
        *,
        schema: pa.Schema,
        rules: Rules,
        findings: Findings,
        image_reader: Callable[[str], ImageReader],  # for the folder that relative addresses are below
        hash_clip: Hasher = no_hash,
        selection: Selection = EVERYTHING,
    ) -> None:
        self.findings, self.rules, self.hash_clip, self.selection = findings, rules, hash_clip, selection
        self.images = Images(image_reader)
        self.known = usable_columns(schema, findings)
        self.num_selected = 0
        self._num_rows = 0
        self._ids = IdBook()
        self._index = IndexBuilder()

    @property
    def has_prompts(self) -> bool:
        """Without prompts every row would be reported for the same reason."""
        return "prompt" in self.known

    @property
    def columns(self) -> frozenset[str]:
        """What must be read."""
        return self.selection.columns | set(self.known)

    @property
    def is_full(self) -> bool:
        return self.selection.is_full(self.num_selected)

    def check(self, batch: Batch) -> None:
        data, first = batch.data, batch.first_row
        selected = self.selection.mask(data, first_row=first, num_before=self.num_selected).tolist()
        found = Findings()  # of rows that are not selected as well
        cells = read_cells(data, self.known, found, first_row=first)
        if not any(finding.row < 0 and finding.column == "prompt" for finding in found.items):
            self._check_rows(batch, cells, selected, found)
        self.findings.take(found, first_row=first, selected=selected)
        self.findings.settle()
        self._index.pack()
        self._num_rows += data.num_rows
        self.num_selected += sum(selected)

    def finish(self) -> RowIndex:
        if self.has_prompts and self.num_selected == 0:
            expected = "at least one" if not self.selection.values else "a selection that takes at least one"
            self.findings.add(-1, "", "no rows" if not self._num_rows else f"none of {self._num_rows} rows", expected)
        self.findings.settle()
        return self._index.build()

    def _check_rows(self, batch: Batch, cells: Cells, selected: Sequence[bool], found: Findings) -> None:
        first = batch.first_row
        images = self.images.look(cells.get("image", ()), folder=batch.folder) or [None] * batch.data.num_rows
        checker = RowChecker(rules=self.rules, findings=found)
        for offset, values in enumerate(zip(*(cells[name] for name in self.known), strict=True)):
            given = NOTHING | dict(zip(self.known, values, strict=True))
            self._check_row(first + offset, given, images[offset], checker, selected=selected[offset])

    def _check_row(
        self, row: int, given: Given, image: "int | BadImage | None", checker: RowChecker, *, selected: bool
    ) -> None:
        found = checker.findings
        before = len(found.items)
        if isinstance(image, BadImage):
            found.add(row, "image", image.got, image.expected)
            image = None
        ref = self.images.refs[image] if image is not None else None
        clip_id = self._clip_id(row, given, ref, found)
        if not selected or not checker.check(row, given) or len(found.items) > before:
            return
        clip = self.rules.clip(row, given, image=ref, clip_id=clip_id)
        self._index.add(
            clip,
            settings_hash=self.hash_clip(clip),
            image_code=NO_IMAGE if image is None else image,
            text_tokens=self.rules.num_tokens(clip.prompt),
        )

    def _clip_id(self, row: int, given: Given, image: ImageRef | None, found: Findings) -> str:
        """The given id checked, a missing one made; equal without regard to case is a finding for the later row."""
        clip_id: str | None = given["clip_id"]
        if clip_id is None:
            return self._ids.derive(row, given, image.identity if image else None)
        owner = self._ids.claim(clip_id, row)
        if not SAFE_ID.fullmatch(clip_id):
            found.add(row, "clip_id", quoted(clip_id), SAFE_ID_WORDS)
        elif owner is not None:
            expected = f"one that no other row has (row {owner} has it, case is not regarded)"
            found.add(row, "clip_id", quoted(clip_id), expected)
        return clip_id


class Images:
    """The distinct images of a manifest, each looked at once; those that it holds itself without their bytes."""

    def __init__(self, reader: Callable[[str], ImageReader]) -> None:
        self.refs: list[ImageRef] = []
        self._reader = reader
        self._readers: dict[str, ImageReader] = {}
        self._seen: dict[tuple[str, str], int | BadImage] = {}  # (folder, address)
        self._held: dict[str, int] = {}  # by identity

    def look(self, values: Sequence[Any], *, folder: str) -> list[int | BadImage | None]:
        """For each cell a number in `refs`, or why the image cannot be used; None: there is none."""
        wanted = [address_or_bytes(value) for value in values]
        new = [
            each
            for each in wanted
            if each is not None and (isinstance(each, bytes) or (folder, each) not in self._seen)
        ]
        held: dict[bytes, int | BadImage] = {}
        if new:
            if folder not in self._readers:
                self._readers[folder] = self._reader(folder)
            for value, image in self._readers[folder].read_all(new).items():
                if isinstance(value, bytes):
                    held[value] = image if isinstance(image, BadImage) else self._hold(image)
                else:
                    self._seen[folder, value] = image if isinstance(image, BadImage) else self._keep(image)
        return [
            None if each is None else held[each] if isinstance(each, bytes) else self._seen[folder, each]
            for each in wanted
        ]

    def _keep(self, image: ImageRef) -> int:
        self.refs.append(image)
        return len(self.refs) - 1

    def _hold(self, image: ImageRef) -> int:
        if image.identity not in self._held:
            self._held[image.identity] = self._keep(replace(image, data=None))
        return self._held[image.identity]


def address_or_bytes(value: Any) -> str | bytes | None:
    if isinstance(value, dict):
        data: bytes | None = value.get("bytes")
        path: str | None = value.get("path")
        return path if data is None else data
    text: str | None = value
    return text
