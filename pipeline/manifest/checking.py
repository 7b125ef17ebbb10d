"""Puts a manifest's rows, batch by batch, through all checks, and keeps of each what its clip's plan needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.counting import counted
from pipeline.inputs.files import Ref
from pipeline.inputs.header import BadInput
from pipeline.inputs.images import ImageReader
from pipeline.inputs.sounds import SoundReader
from pipeline.manifest.cells import Cells, quoted, read_cells, usable_columns
from pipeline.manifest.findings import Findings
from pipeline.manifest.hashing import Hasher
from pipeline.manifest.ids import SAFE_ID, SAFE_ID_WORDS, IdBook
from pipeline.manifest.index import NO_INPUT, IndexBuilder, RowIndex
from pipeline.manifest.inputs import Inputs
from pipeline.manifest.rows import NOTHING, Given, RowChecker, Rules
from pipeline.manifest.selection import EVERYTHING, Selection
from pipeline.manifest.tables import Batch
from pipeline.types import Clip, ImageRef, SoundRef


def no_hash(clip: Clip) -> str:
    """For manifests that are checked and not rendered."""
    return "0" * 16


@dataclass(frozen=True, kw_only=True)
class Readers:
    """Of what cells name, for the folder that relative addresses are below."""

    images: Callable[[str], ImageReader]
    sounds: Callable[[str], SoundReader]


class ManifestChecker:
    """`check` takes the batches in order, `finish` gives the index; what is wrong is in `findings`."""

    def __init__(
        self,
        *,
        schema: pa.Schema,
        rules: Rules,
        findings: Findings,
        readers: Readers,
        hash_clip: Hasher = no_hash,
        selection: Selection = EVERYTHING,
    ) -> None:
        self.findings, self.rules, self.hash_clip, self.selection = findings, rules, hash_clip, selection
        self.images, self.sounds = Inputs(readers.images), Inputs(readers.sounds)
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
            self.findings.add(
                -1, "", "no rows" if not self._num_rows else f"none of {counted(self._num_rows, 'row')}", expected
            )
        self.findings.settle()
        return self._index.build()

    def _check_rows(self, batch: Batch, cells: Cells, selected: Sequence[bool], found: Findings) -> None:
        first = batch.first_row
        nothing = [None] * batch.data.num_rows
        images = self.images.look(cells.get("image", ()), folder=batch.folder) or nothing
        sounds = self.sounds.look(cells.get("audio_in", ()), folder=batch.folder) or nothing
        checker = RowChecker(rules=self.rules, findings=found)
        for offset, values in enumerate(zip(*(cells[name] for name in self.known), strict=True)):
            given = NOTHING | dict(zip(self.known, values, strict=True))
            named = {"image": images[offset], "audio_in": sounds[offset]}
            self._check_row(first + offset, given, named, checker, selected=selected[offset])

    def _check_row(
        self, row: int, given: Given, named: Mapping[str, int | BadInput | None], checker: RowChecker, *, selected: bool
    ) -> None:
        """`named`: by column the number of the file that the row names, or why it cannot be used."""
        found = checker.findings
        before = len(found.items)
        for column, each in named.items():
            if isinstance(each, BadInput):
                found.add(row, column, each.got, each.expected)
        image, sound = _ref(self.images, named["image"]), _ref(self.sounds, named["audio_in"])
        clip_id = self._clip_id(row, given, image, sound, found)
        if not selected or not checker.check(row, given, sound=sound) or len(found.items) > before:
            return
        clip = self.rules.clip(row, given, image=image, sound=sound, clip_id=clip_id)
        self._index.add(
            clip,
            settings_hash=self.hash_clip(clip),
            image_code=_code(named["image"]),
            sound_code=_code(named["audio_in"]),
            text_tokens=self.rules.num_tokens(clip.prompt),
        )

    def _clip_id(self, row: int, given: Given, image: ImageRef | None, sound: SoundRef | None, found: Findings) -> str:
        """The given id checked, a missing one made; equal without regard to case is a finding for the later row."""
        clip_id: str | None = given["clip_id"]
        if clip_id is None:
            named = {"image": image, "audio_in": sound}
            return self._ids.derive(row, given, {name: ref.identity for name, ref in named.items() if ref is not None})
        owner = self._ids.claim(clip_id, row)
        if not SAFE_ID.fullmatch(clip_id):
            found.add(row, "clip_id", quoted(clip_id), SAFE_ID_WORDS)
        elif owner is not None:
            expected = f"one that no other row has (row {owner} has it, case is not regarded)"
            found.add(row, "clip_id", quoted(clip_id), expected)
        return clip_id


def _ref(inputs: Inputs[Ref], named: int | BadInput | None) -> Ref | None:
    return inputs.refs[named] if isinstance(named, int) else None


def _code(named: int | BadInput | None) -> int:
    return named if isinstance(named, int) else NO_INPUT
