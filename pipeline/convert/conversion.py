"""`SOURCE -> TARGET`: manifests between Parquet and CSV, JSON Lines or JSON, checked as `render` checks them.

Text becomes a temporary Parquet file first; that one is checked, then published or written on as text. TARGET appears
whole or not at all, and never where anything is wrong. Relative images are looked for beside the file that `render` is
to read: TARGET if SOURCE is text, else SOURCE.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from model.config import ModelConfig
from model.text import SPARE_TOKENS
from pipeline.convert.rows import TextFormat
from pipeline.convert.table import TextTable
from pipeline.convert.text import write_text
from pipeline.counting import counted
from pipeline.errors import ConfigError, Finding, ManifestError, StoreError
from pipeline.inputs.access import OWN_FOLDER, InputAccess
from pipeline.manifest.findings import Findings, findings_file
from pipeline.manifest.reading import check_manifest
from pipeline.manifest.rows import Rules
from pipeline.manifest.sources import check_kind
from pipeline.manifest.tables import Source, open_source
from pipeline.store import StorageSettings, open_store, split_uri

Format = Literal["parquet", "csv", "jsonl", "json"]
SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What is converted, and the model whose limits count. `count_tokens` None: the rows are not checked."""

    source: str
    target: str
    storage: StorageSettings
    model: ModelConfig
    count_tokens: Callable[[str], int] | None
    source_format: Format | None = None  # None: by the suffix
    target_format: Format | None = None
    access: InputAccess = OWN_FOLDER
    findings: str | None = None  # the address of a Parquet file that gets all that is wrong


def convert(conversion: Conversion) -> int:
    """Number of rows written. ManifestError lists all that is wrong, and then nothing was written."""
    source_format = conversion.source_format or _by_suffix(conversion.source, "source")
    target_format = conversion.target_format or _by_suffix(conversion.target, "target")
    check_kind(conversion.source)
    if conversion.findings is not None and conversion.findings in (conversion.source, conversion.target):
        raise ConfigError(f"findings={conversion.findings} is the source or the target; name another file")
    _check_target(conversion, is_part=source_format == target_format == "parquet")
    with tempfile.TemporaryDirectory(prefix="happyhorse-") as folder, _disk_errors(folder):
        with findings_file(conversion.findings, conversion.storage) as file:
            findings = Findings(file)
            with _collected(findings):
                finished, num_rows = _converted(conversion, source_format, target_format, Path(folder), findings)
        findings.raise_if_any(conversion.source)
        root, name = split_uri(conversion.target)
        open_store(root, conversion.storage).put_file(name, finished)
    log.info("%s: %s written to %s", conversion.source, counted(num_rows, "row"), conversion.target)
    return num_rows


def _converted(
    conversion: Conversion, source: Format, target: Format, folder: Path, findings: Findings
) -> tuple[Path, int]:
    """The finished file, still in `folder`, and its number of rows; worth nothing where there are findings."""
    if source == "parquet":
        table, beside = open_source(conversion.source, storage=conversion.storage), None
    else:
        path, beside = folder / "rows.parquet", split_uri(conversion.target)[0]
        _tabulate(conversion, source, path, findings)
        table = open_source(str(path), storage=conversion.storage)
    if conversion.count_tokens is not None:
        rules = Rules(model=conversion.model, count_tokens=conversion.count_tokens, spare_tokens=SPARE_TOKENS)
        check_manifest(
            table,
            storage=conversion.storage,
            rules=rules,
            findings=findings,
            folder=beside,
            access=conversion.access,
        )
    if source != "parquet" and target == "parquet":
        return path, table.num_rows
    finished = folder / "finished"
    if not findings.in_order():
        _write(table, finished, target, findings)
    return finished, table.num_rows


def _tabulate(conversion: Conversion, source: TextFormat, table: Path, findings: Findings) -> None:
    path = _local(conversion.source, table.parent, conversion.storage)
    rows = TextTable(path=path, file_format=source, name=conversion.source, sizes=conversion.model.sizes)
    rows.survey(findings)
    rows.write(table)


def _write(table: Source, finished: Path, target: Format, findings: Findings) -> None:
    batches = (batch.data for batch in table.batches())
    if target != "parquet":
        write_text(batches, finished, target, names=table.schema.names, findings=findings)
        return
    with pq.ParquetWriter(finished, table.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _by_suffix(uri: str, key: str) -> Format:
    _, dot, suffix = uri.rstrip("/").rpartition("/")[2].rpartition(".")
    found = SUFFIXES.get(f".{suffix.lower()}") if dot else None
    if found is not None:
        return found
    if key == "source" and (not dot or suffix.endswith("*")):
        return "parquet"  # a folder, or a glob of them
    known = ", ".join(SUFFIXES)
    raise ConfigError(f"{uri}: its end says no format, expected one of {known}; or {key}_format=parquet|csv|jsonl|json")


def _check_target(conversion: Conversion, *, is_part: bool) -> None:
    """ConfigError where writing TARGET would change SOURCE."""
    source, target = _absolute(conversion.source), _absolute(conversion.target)
    if "://" not in target and os.path.isdir(target):
        raise ConfigError(f"{conversion.target} is a folder, expected the name of a file for the target")
    if source == target:
        raise ConfigError(f"{conversion.target} is the source itself, expected another name for the target")
    if is_part and (target.startswith(f"{source}/") or fnmatch(target, source)):
        raise ConfigError(
            f"{conversion.target} would be a part of the source {conversion.source}, expected another place"
        )


def _absolute(uri: str) -> str:
    root, name = split_uri(uri.rstrip("/"))
    address = open_store(root).where(name)
    return address if "://" in address else os.path.realpath(address)


def _local(uri: str, folder: Path, storage: StorageSettings) -> Path:
    """The file itself, or a copy of the object in `folder`: it is read twice."""
    root, name = split_uri(uri)
    store = open_store(root, storage)
    if store.head(name) is None:
        raise ManifestError(uri, [Finding(-1, "", "no such file", "a file of CSV, JSON Lines or JSON")])
    if "://" not in store.uri:
        return Path(store.where(name))
    with (folder / "source").open("wb") as file:
        file.writelines(store.stream(name))
    return folder / "source"


@contextmanager
def _collected(findings: Findings) -> Iterator[None]:
    """What ends the conversion is one more finding."""
    try:
        yield
    except ManifestError as error:
        for each in set(error.findings) - set(findings.in_order()):
            findings.add(each.row, each.column, each.value, each.expected)
    findings.settle()


@contextmanager
def _disk_errors(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot convert in {folder}: {error.strerror or error}") from error
