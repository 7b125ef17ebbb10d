"""`happyhorse clean output=Y [dry_run=true] [superseded=true]`: removes what nobody counts on, and says so first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.audit import row_settings
from jobs.settings import lease_settings
from jobs.typed import build
from pipeline.audit.rows import read_rows
from pipeline.cleaning import clean_output
from pipeline.errors import ConfigError
from pipeline.results import read_run
from pipeline.store import StorageSettings, open_store


@dataclass(frozen=True, kw_only=True)
class CleanSettings:
    output: str
    storage: StorageSettings
    dry_run: bool
    superseded: bool
    manifest: str | None

    def __post_init__(self) -> None:
        if self.manifest is not None and not self.superseded:
            raise ConfigError("manifest= says which records are superseded: it goes with superseded=true")


def clean(values: Mapping[str, Any]) -> int:
    settings = build(CleanSettings, {key: value for key, value in values.items() if key != "job"}, at="")
    store = open_store(settings.output, settings.storage)
    rows = None
    if settings.superseded:
        rows = read_rows(row_settings(store, read_run(store), manifest=settings.manifest), settings.storage)
    verb = "would remove" if settings.dry_run else "removing"
    num_files = num_records = size_bytes = 0
    for removal in clean_output(store, rows=rows, lease=lease_settings(values), dry_run=settings.dry_run):
        print(f"{verb} {removal}", flush=True)
        num_records += removal.size_bytes is None
        num_files += removal.size_bytes is not None
        size_bytes += removal.size_bytes or 0
    records = f" and {num_records} records" if settings.superseded else ""
    done = "would be removed" if settings.dry_run else "removed"
    print(f"{store.uri}: {num_files} files of {size_bytes / 1e6:,.1f} MB{records} {done}")
    return 0
