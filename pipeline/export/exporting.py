"""`happyhorse export`: finished clips under plain names, with an index. The output itself is only read.

All names are checked first; then what is missing is written, the index last. The same command goes on after a stop.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from pipeline.errors import ConfigError
from pipeline.export.checking import check_names, row_names
from pipeline.export.delivery import Check, Damaged, Delivered, Delivery, How
from pipeline.export.index import CSV, PARQUET, check_index, open_index
from pipeline.export.names import Pattern, parse_pattern
from pipeline.export.rows import RecordRows, ResultRows, Row, Rows
from pipeline.keyset import KeySet
from pipeline.ledger import Ledger, NotARecord
from pipeline.scratch import temporary_folder
from pipeline.side_by_side import side_by_side
from pipeline.store import Store
from pipeline.types import MediaFile

NUM_COPIERS = 8
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What of an output goes where. `kinds`: of mp4, wav and jpg those that are wanted."""

    name: str = "{clip_id}.{kind}"
    kinds: tuple[str, ...] = ("mp4", "wav", "jpg")
    how: How = "auto"
    check: Check = "digest"
    replace: bool = False
    all: bool = False  # every record, whatever the results name

    def __post_init__(self) -> None:
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise ConfigError(f"kinds is [{', '.join(self.kinds)}], expected some of mp4, wav and jpg, each once")


@dataclass(frozen=True, kw_only=True)
class Exported:
    num_clips: int
    num_unfinished: int  # rows of the results without a finished clip
    files: Mapping[Delivered, int]
    findings: tuple[str, ...]  # files that could not be exported, and why


@dataclass(kw_only=True)
class _Clip:
    """What came of one row."""

    row: Row
    files: dict[str, tuple[str, MediaFile]] = field(default_factory=dict)  # kind -> (name, file) of those in place
    how: Counter[Delivered] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


def export_clips(source: Store, target: Store, settings: ExportSettings) -> Exported:
    """ConfigError for bad names, before anything is written; StoreError where storage says no."""
    if target.uri == source.uri or target.uri.startswith(f"{source.uri}/"):
        raise ConfigError(f"to={target.uri} lies in the output, which holds what runs leave; expected another place")
    pattern = parse_pattern(settings.name)
    rows: Rows = RecordRows(source) if settings.all else ResultRows(source)
    rows.check(pattern)
    check_index(target, source.uri)
    num_clips = check_names(rows, pattern, settings.kinds)
    log.info("%s: %d finished clips", source.uri, num_clips)
    files: Counter[Delivered] = Counter()
    findings: list[str] = []
    for clip in _write(rows, source, target, settings, pattern) if num_clips else ():
        files.update(clip.how)
        findings += clip.findings
    return Exported(num_clips=num_clips, num_unfinished=rows.num_unfinished, files=files, findings=tuple(findings))


def _write(rows: Rows, source: Store, target: Store, settings: ExportSettings, pattern: Pattern) -> Iterator[_Clip]:
    """All files, then the index."""
    ledger = Ledger(source)
    delivery = Delivery(source=source, target=target, how=settings.how, check=settings.check, replace=settings.replace)
    done = ledger.done_keys()
    work = partial(_export, ledger=ledger, done=done, delivery=delivery, pattern=pattern, kinds=settings.kinds)
    with temporary_folder() as folder:
        with open_index(folder, rows.schema, settings.kinds, output=source.uri) as index:
            for clip in side_by_side(work, rows, threads=NUM_COPIERS):
                if clip.files:
                    index.add(clip.row.cells, clip.files)
                yield clip
        for name in (CSV, PARQUET):
            target.put_file(name, folder / name)


def _export(
    row: Row, *, ledger: Ledger, done: KeySet, delivery: Delivery, pattern: Pattern, kinds: tuple[str, ...]
) -> _Clip:
    clip = _Clip(row=row)
    try:
        if row.record not in done:
            raise Damaged(f"{row.record}: got no such record, expected one; the same render makes the clip again")
        record = ledger.read_record(row.record)
    except (Damaged, NotARecord) as error:
        clip.findings.append(f"clip {row.clip_id}: {error}")
        return clip
    for kind, name in row_names(row, pattern, kinds).items():
        try:
            if kind not in record.finished.files:
                raise Damaged(f"{row.record}: got no {kind}, expected one")
            file = record.finished.files[kind]
            clip.how[delivery.deliver(file, name)] += 1
            clip.files[kind] = (name, file)
        except Damaged as error:
            clip.findings.append(f"clip {row.clip_id}: {error}")
    return clip
