"""`happyhorse clean output=Y [dry_run=true] [superseded=true|all]`: removes what nobody counts on, said first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jobs.audit import row_settings
from jobs.settings import lease_settings
from jobs.typed import build
from pipeline.audit.rows import read_rows
from pipeline.cleaning import Superseded, clean_output
from pipeline.counting import counted
from pipeline.errors import ConfigError
from pipeline.results import read_run
from pipeline.store import StorageSettings, open_store


@dataclass(frozen=True, kw_only=True)
class CleanSettings:
    output: str
    storage: StorageSettings
    dry_run: bool
    superseded: Literal[True, False, "all"]
    manifest: str | None

    def __post_init__(self) -> None:
        if self.manifest is not None and not self.superseded:
            raise ConfigError("manifest= says which records are superseded: it goes with superseded=true")


def clean(values: Mapping[str, Any]) -> int:
    settings = build(CleanSettings, {key: value for key, value in values.items() if key != "job"}, at="")
    store = open_store(settings.output, settings.storage)
    superseded = None
    if settings.superseded:
        rows = read_rows(row_settings(store, read_run(store), manifest=settings.manifest), settings.storage)
        superseded = Superseded(rows=rows, all=settings.superseded == "all")
    verb = "would remove" if settings.dry_run else "removing"
    num_files = num_records = size_bytes = 0
    for removal in clean_output(store, superseded=superseded, lease=lease_settings(values), dry_run=settings.dry_run):
        print(f"{verb} {removal}", flush=True)
        num_records += removal.size_bytes is None
        num_files += removal.size_bytes is not None
        size_bytes += removal.size_bytes or 0
    records = f" and {counted(num_records, 'record')}" if settings.superseded else ""
    done = "would be removed" if settings.dry_run else "removed"
    print(f"{store.uri}: {counted(num_files, 'file')} of {size_bytes / 1e6:,.1f} MB{records} {done}")
    if superseded is not None and superseded.num_kept:
        print(
            f"left, for nothing replaces them: {counted(superseded.num_kept, 'superseded record')} with their files, "
            "of clips that are not made again yet, or have no row any more (superseded=all removes these too)"
        )
    return 0
