"""What the audit counts, and that nothing a crash or a run at work leaves is a finding."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.audit import finding as finding_module
from pipeline.audit.auditing import audit_output
from pipeline.audit.finding import AuditFinding, Findings
from pipeline.audit.rows import read_rows
from pipeline.errors import ManifestError, StoreError, WeightsError
from pipeline.ledger import Ledger, failed_key
from pipeline.store import StorageSettings, Store, open_store
from pipeline.types import ClipFailure
from tests.busy import BusyStore, Script, steps_of
from tests.configured import load_model
from tests.manifests import write
from tests.outputs import ROWS, Media, Output, Run, row_settings

NO_FINDINGS: list[str] = []
FAILURE = ClipFailure(stage="finish", kind="EncodeError", message="ffmpeg said no", retriable=False)


def fail(store: Store, clip_id: str, settings_hash: str) -> None:
    Ledger(store).fail(clip_id, settings_hash=settings_hash, failures=[FAILURE], row={})


def test_files_that_no_record_names_are_counted(output: Output) -> None:
    output.store.put("clips/a.99999999.mp4", b"12345")
    output.store.put("clips/zz.88888888.wav", b"123")
    report = output.audit()
    assert (report.orphans.count, report.orphans.size_bytes, report.unrecorded.count) == (2, 8, 0)
    assert output.findings() == NO_FINDINGS


def test_files_of_a_run_at_work_are_told_from_orphans(output: Output) -> None:
    output.store.put("clips/a.99999999.mp4", b"12345")
    write(output.folder, ROWS | {"seed": [1, 2, 3, 44]})
    run = Run(output.store, output.manifest, media=output.media, folder=output.folder)
    old = datetime.now(UTC) - timedelta(hours=1)
    touch(output.store, "clips/a.99999999.mp4", old)
    (clip,) = run.manifest.load(run.recorder.plan.to_render)
    run.upload(clip, attempt="77777777")
    report = output.audit()
    assert (report.orphans.count, report.unrecorded.count) == (1, 3)
    assert report.lease.holder is not None
    assert report.states == {"SUCCEEDED": 3, "FAILED": 0, "PENDING": 1, "INVALID": 0}
    assert report.findings.kept == []
    run.lease.release()
    report = output.audit()
    assert (report.orphans.count, report.unrecorded.count, report.lease.holder) == (4, 0, None)


def touch(store: Store, key: str, moment: datetime) -> None:
    os.utime(f"{store.uri}/{key}", (moment.timestamp(), moment.timestamp()))


def test_a_lease_that_nobody_gave_back_is_stale_when_it_is_old(output: Output) -> None:
    run = Run(output.store, output.manifest, media=output.media, folder=output.folder)
    assert output.audit().lease.num_stale == 0
    assert output.audit().lease.holder is not None
    long_ago = datetime.now(UTC) - timedelta(minutes=5)
    for entry in list(output.store.list("lease")):
        touch(output.store, entry.key, long_ago)
    assert (output.audit().lease.num_stale, output.audit().lease.is_old) == (1, True)
    run.lease.release()
    assert output.audit().lease.num_stale == 0


def test_each_row_is_in_one_state_and_other_records_are_superseded(output: Output) -> None:
    rows = {name: list(values) for name, values in ROWS.items()}
    rows["seed"][0] = 99  # a: another hash, so not done, and its record superseded
    rows["prompt"][1] = ""  # b: no clip can be made of it; its record is superseded
    rows = {name: [*values, *values[:1]] for name, values in rows.items()}
    rows["clip_id"][4] = "e"
    write(output.folder, rows)
    index = read_rows(row_settings(output.manifest), StorageSettings()).index
    fail(output.store, "e", index.settings_hash(3))
    fail(output.store, "c", index.settings_hash(1))  # has a record since
    fail(output.store, "a", "0" * 16)  # of other settings
    report = output.audit()
    assert report.states == {"SUCCEEDED": 2, "FAILED": 1, "PENDING": 1, "INVALID": 1}
    assert (report.num_records, report.num_superseded) == (4, 2)
    assert (report.num_failures, report.num_overtaken) == (3, 1)
    assert report.findings.kept == []
    assert failed_key("a", "0" * 16) in Ledger(output.store).failed_keys()


def test_texts_that_were_cut_are_found_by_their_tokens(output: Output) -> None:
    """The tokenizer decides what such a row's record is named; without it the rows cannot be judged."""
    write(output.folder, {"clip_id": ["a"], "prompt": ["circle " * 700]})
    plain = replace(row_settings(output.manifest), model=load_model("foal"))
    cut, whole = replace(plain, truncate_text=True), read_rows(plain, StorageSettings())
    assert read_rows(cut, StorageSettings()).index.hashes.tolist() != whole.index.hashes.tolist()
    with pytest.raises(WeightsError, match="nowhere is not there"):
        read_rows(replace(cut, weights="nowhere"), StorageSettings())


def test_without_rows_records_and_files_are_checked_all_the_same(output: Output) -> None:
    output.store.delete("clips/a.00000000.mp4")
    report = output.audit(rows=False)
    assert (report.states, report.num_superseded, report.num_records) == (None, None, 4)
    assert [finding.file for finding in report.findings.kept] == ["clips/a.00000000.mp4"]


def test_a_manifest_that_is_gone_is_said(output: Output) -> None:
    output.manifest.unlink()
    with pytest.raises(ManifestError, match=r"m\.parquet"):
        read_rows(row_settings(output.manifest), StorageSettings())


def test_nothing_there_is_not_nothing_wrong(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"typo holds neither run\.json nor records: there is nothing to audit"):
        audit_output(open_store(str(tmp_path / "typo")), rows=None)


def test_results_of_another_shape_are_a_finding(output: Output) -> None:
    table = pq.read_table(f"{output.store.uri}/results.parquet").drop_columns(["render_attempt"])
    pq.write_table(table, output.folder / "r.parquet")
    output.store.put_file("results.parquet", output.folder / "r.parquet")
    assert output.findings() == ["results.parquet: got no column render_attempt, expected what a run leaves"]


def test_many_findings_are_counted_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding_module, "MOST_KEPT", 2)
    findings = Findings()
    for number in range(5):
        findings.add(AuditFinding(record=str(number), got="a", expected="b"))
    assert ([each.record for each in findings.kept], len(findings)) == (["0", "1"], 5)


@pytest.mark.parametrize("at", range(12))
def test_a_run_at_work_makes_no_finding(media: Media, tmp_path: Path, at: int) -> None:
    """Whatever the audit has read when the run goes on: two of its clips are new, one was done before."""
    store = open_store(str(tmp_path / "out"))
    folder = tmp_path / "scratch"
    folder.mkdir()
    few = {name: values[:1] for name, values in ROWS.items()}
    first = Run(store, write(folder, few), media=media, folder=folder)
    first.finish(first.manifest.load([0]))
    first.close()
    manifest = write(folder, {name: values[:3] for name, values in ROWS.items()})
    script = Script(steps_of(lambda: Run(store, manifest, media=media, folder=folder)), at=at)
    busy = BusyStore(store.uri, StorageSettings()).act(script)
    report = audit_output(busy, rows=read_rows(row_settings(manifest), StorageSettings()))
    assert [str(each) for each in report.findings.kept] == NO_FINDINGS
    assert report.states is not None
    assert sum(report.states.values()) == 3
    assert report.states["SUCCEEDED"] == report.num_records >= 1
    assert script.left < 0, "the run never went on: fewer steps are enough"
