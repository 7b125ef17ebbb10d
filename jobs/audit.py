"""`happyhorse audit output=Y [manifest=X]`: is everything there, once, and as recorded? Exit 0 yes, 1 no, 2 unknown."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from jobs.typed import build
from pipeline.audit.auditing import AuditReport, Counted, audit_output
from pipeline.audit.rows import Rows, RowSettings, read_rows
from pipeline.errors import ConfigError, RenderError
from pipeline.results import RUN, read_run
from pipeline.store import StorageSettings, Store, open_store
from pipeline.summary import BAD_INPUT
from pipeline.types import JsonDict

SHOWN = 100  # findings in the table; JSON has them all


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    output: str
    manifest: str | None
    storage: StorageSettings
    format: Literal["table", "json"]


def audit(values: Mapping[str, Any]) -> int:
    settings = build(AuditSettings, {key: value for key, value in values.items() if key != "job"}, at="")
    store = open_store(settings.output, settings.storage)
    run = read_run(store)
    rows, unread = rows_of_run(store, run, manifest=settings.manifest)
    report = audit_output(store, rows=rows)
    if settings.format == "json":
        print(json.dumps(_values(store, run, rows, unread, report), ensure_ascii=False, indent=1, allow_nan=False))
    else:
        print(*_lines(store, run, rows, unread, report), sep="\n")
    if report.findings:
        return 1
    return 0 if rows is not None else BAD_INPUT  # nobody is to take half an audit for a whole one


def rows_of_run(store: Store, run: JsonDict | None, *, manifest: str | None) -> tuple[Rows | None, str]:
    """The rows of `manifest`, None: of the run's own. Without that, why they cannot be read any more.

    RenderError if it was asked for and cannot be read.
    """
    try:
        return read_rows(row_settings(store, run, manifest=manifest), store.settings), ""
    except RenderError as error:
        if manifest is not None:
            raise
        return None, str(error)


def row_settings(store: Store, run: JsonDict | None, *, manifest: str | None) -> RowSettings:
    """From what a run wrote down of itself. ConfigError if that is not enough."""
    if run is None:
        raise ConfigError(f"{store.where(RUN)} is not there: it is not known with which settings rows were rendered")
    try:
        used = run["settings"]
        values = {name: used[name] for name in ("manifest", "weights", "model", "media", "images", "truncate_text")}
        values |= {"model_hash": run["model_hash"]} | ({"manifest": manifest} if manifest is not None else {})
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{store.where(RUN)} does not say with which settings rows were rendered ({error})"
        ) from error
    return build(RowSettings, values, at=RUN)


def _values(store: Store, run: JsonDict | None, rows: Rows | None, unread: str, report: AuditReport) -> JsonDict:
    return {
        "output": store.uri,
        "run": {name: run.get(name) for name in ("run_id", "started_at", "ended_at", "written_at")} if run else None,
        "manifest": rows.manifest if rows else None,
        "rows_not_checked": unread or None,
        "rows": report.states,
        "records": report.num_records,
        "superseded": report.num_superseded,
        "files": asdict(report.files),
        "orphans": asdict(report.orphans),
        "unrecorded": asdict(report.unrecorded),
        "unfinished": asdict(report.unfinished),
        "failures": report.num_failures,
        "failures_overtaken": report.num_overtaken,
        "lease": {"holder": _at_work(report), "stale": report.lease.num_stale},
        "num_findings": len(report.findings),
        "findings": [asdict(finding) for finding in report.findings.kept],
    }


def _lines(store: Store, run: JsonDict | None, rows: Rows | None, unread: str, report: AuditReport) -> Iterator[str]:
    found = report.findings
    yield f"{store.uri}" + (f", run {run.get('run_id')}" if run else "")
    yield from (f"  {name:<11}{text}" for name, text in _table(rows, report))
    if rows is not None and run is not None and rows.num_rows > len(rows.index):
        yield f"  INVALID    {_invalid(rows, model=run['settings']['model']['name'])}"
    if rows is None:
        yield f"  rows were not checked, only records and files: {unread}"
    yield from map(str, found.kept[:SHOWN])
    if len(found) > SHOWN:
        yield f"and {len(found) - SHOWN} more (format=json lists {len(found.kept)} of them)"
    if found:
        yield f"findings: {len(found)}. Delete the records they name and render again to mend these clips"
    elif rows is None:
        yield "records and files are well. Name the manifest with manifest=..., or let `verify` answer for files alone"
    else:
        yield "every record is one of its own, and every file is as recorded"


def _table(rows: Rows | None, report: AuditReport) -> Iterator[tuple[str, str]]:
    if rows is not None and report.states is not None:
        states = [f"{count:,} {state}" for state, count in report.states.items() if count]
        yield "rows", f"{rows.num_rows:,} of {rows.manifest}: {', '.join(states)}"
    superseded = "" if report.num_superseded is None else f", {report.num_superseded:,} superseded"
    yield "records", f"{report.num_records:,}{superseded}"
    yield "files", f"{_counted(report.files)} that records name"
    yield "orphans", f"{_counted(report.orphans)} that no record names"
    if report.unfinished.count:
        yield "unfinished", f"{_counted(report.unfinished)} half-written"
    if _at_work(report) is not None:
        yield "at work", f"{_at_work(report)}; {_counted(report.unrecorded)} not recorded yet"
    yield "failures", f"{report.num_failures:,}, {report.num_overtaken:,} of clips that have a record since"
    yield "leases", f"{report.lease.num_stale:,} that nobody gave back"


def _invalid(rows: Rows, *, model: str) -> str:
    """What the word means, and which command says why."""
    command = shlex.join(["happyhorse", "plan", f"manifest={rows.manifest}", f"model={model}"])
    return f"rows as they are now of which no clip can be made; `{command}` lists what is wrong with them"


def _at_work(report: AuditReport) -> str | None:
    return report.lease.holder if not report.lease.is_old else None


def _counted(files: Counted) -> str:
    return f"{files.count:,} of {files.size_bytes / 1e6:,.1f} MB"
