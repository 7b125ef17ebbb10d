"""`happyhorse export output=Y to=PLACE`: finished clips under plain names. Exit 0, or 1 where some could not be."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from jobs.typed import build
from pipeline.counting import counted
from pipeline.export.delivery import Check, How
from pipeline.export.exporting import Exported, ExportSettings, export_clips
from pipeline.export.index import CSV, PARQUET
from pipeline.store import StorageSettings, open_store


@dataclass(frozen=True, kw_only=True)
class ExportValues:
    output: str
    to: str
    storage: StorageSettings
    name: str
    kinds: tuple[Literal["mp4", "wav", "jpg"], ...]
    how: How
    check: Check
    replace: bool
    all: bool


def export(values: Mapping[str, Any]) -> int:
    given = build(ExportValues, values, at="")
    settings = ExportSettings(**{each.name: getattr(given, each.name) for each in fields(ExportSettings)})
    source, target = (open_store(place, given.storage) for place in (given.output, given.to))
    exported = export_clips(source, target, settings)
    print(*tell(exported, where=target.uri), sep="\n")
    return 1 if exported.findings else 0


def tell(exported: Exported, *, where: str) -> Iterator[str]:
    yield from exported.findings
    counts = [
        f"{counted(exported.files[how], 'file')} {how}" for how in ("linked", "copied") if exported.files.get(how)
    ]
    counts += [f"{exported.files['there']} there before"] if exported.files.get("there") else []
    counts += [f"{len(exported.findings)} left out, see above"] if exported.findings else []
    yield f"{counted(exported.num_clips, 'clip')}: {', '.join(counts) or 'nothing to export'}"
    if exported.num_unfinished:
        rows = counted(exported.num_unfinished, "row")
        yield f"{rows} of the results {'has' if exported.num_unfinished == 1 else 'have'} no finished clip"
    if exported.num_clips:
        yield f"{where}: {CSV} and {PARQUET} say which file is whose"
