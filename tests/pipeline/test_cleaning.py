"""What nobody counts on goes, and nothing else: not under a run at work, nor in a crash between two removals."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.audit.rows import read_rows
from pipeline.cleaning import Removal, Superseded, clean_output
from pipeline.errors import ConfigError, LeaseHeld, StoreError
from pipeline.lease.holder import Machine
from pipeline.probing import PROBE, StoreMode
from pipeline.settings import LeaseSettings
from pipeline.store import StorageSettings, Store, open_store
from tests.busy import BusyStore, Script, steps_of
from tests.manifests import write
from tests.outputs import ROWS, Media, Output, Run, key_of, row_settings

LEASE = LeaseSettings()
ORPHANS = ("clips/a.99999999.mp4", "clips/zz.88888888.wav")
LONG_AGO = datetime.now(UTC) - timedelta(days=1)


def clean(output: Output, *, superseded: Superseded | None = None, dry_run: bool = False, **options: Any) -> list[str]:
    """Keys in the order in which they went."""
    return [
        each.key for each in clean_output(output.store, superseded=superseded, lease=LEASE, dry_run=dry_run, **options)
    ]


def keys(store: Store) -> set[str]:
    return {each.key for each in store.list() if not each.key.startswith("lease/")}


def old(output: Output, *, all: bool = False) -> Superseded:
    return Superseded(rows=read_rows(row_settings(output.manifest), StorageSettings()), all=all)


def touch(store: Store, key: str, *, at: datetime = LONG_AGO) -> None:
    os.utime(f"{store.uri}/{key}", (at.timestamp(), at.timestamp()))


def rerun(output: Output, *, num_rows: int | None = None, **changes: list[Any]) -> None:
    """With a changed manifest, or the first rows of it, to the end."""
    write(output.folder, {name: values[:num_rows] for name, values in (ROWS | changes).items()})
    run = Run(output.store, output.manifest, run_id="rerun", media=output.media, folder=output.folder)
    for clip in run.manifest.load(run.recorder.plan.to_render):
        run.record(clip, run.upload(clip, attempt=f"5555{clip.row:04}"))
    run.close()


def test_files_that_no_record_names_go_and_nothing_else(anywhere: Output) -> None:
    before = keys(anywhere.store)
    for key in ORPHANS:
        anywhere.store.put(key, b"half a clip")
    assert set(clean(anywhere, dry_run=True)) == set(ORPHANS)
    assert keys(anywhere.store) == before | set(ORPHANS)
    assert set(clean(anywhere)) == set(ORPHANS)
    assert keys(anywhere.store) == before
    assert clean(anywhere) == []
    assert anywhere.findings() == []


def test_each_thing_is_said_before_it_goes(output: Output) -> None:
    for key in ORPHANS:
        output.store.put(key, b"12345")
    said: list[Removal] = []
    for removal in clean_output(output.store, superseded=None, lease=LEASE, dry_run=False):
        assert output.store.head(removal.key) == removal.size_bytes == 5
        assert [output.store.head(each.key) for each in said] == [None] * len(said)
        said.append(removal)
    assert {str(each) for each in said} == {f"{key} (5 bytes): no record names it" for key in ORPHANS}


def test_what_is_not_ours_stays(output: Output) -> None:
    for key in ("clips/mine.mp4", "clips/notes.txt", "clips/deep/a.99999999.mp4", "other/a.99999999.mp4"):
        output.store.put(key, b"mine")
    assert clean(output) == []


def test_where_no_run_was_nothing_goes(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put(ORPHANS[0], b"my holidays")
    with pytest.raises(ConfigError, match=r"run\.json is not there: no run has left anything to remove"):
        list(clean_output(store, superseded=None, lease=LEASE, dry_run=False))


def test_files_of_a_record_that_is_damaged_or_gone_stay(output: Output) -> None:
    """They are what a repair would need."""
    output.store.delete(key_of(output.store, "a"))
    assert clean(output) == []  # results.parquet still names them
    output.store.put(key_of(output.store, "b"), b"{}")
    with pytest.raises(StoreError, match="is not a record"):
        clean(output)
    assert output.store.head("clips/b.00000001.wav")


def test_a_record_that_names_another_clips_files_keeps_its_own(output: Output) -> None:
    content = output.store.get(key_of(output.store, "a")).replace(b"clips/a.00000000.wav", b"clips/b.00000001.wav")
    output.store.put(key_of(output.store, "a"), content)
    output.store.delete("results.parquet")
    assert clean(output) == []


class Clock:
    """Time passes where somebody sleeps, and what happens meanwhile happens then."""

    def __init__(self, meanwhile: Any = None) -> None:
        self.now_s, self.meanwhile = 1000.0, meanwhile

    def machine(self) -> Machine:
        return Machine(clock=lambda: self.now_s, sleep=self.sleep, is_gone=lambda holder: False)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.meanwhile is not None:
            self.meanwhile()


def test_what_a_run_at_work_has_uploaded_stays_and_is_recorded(output: Output) -> None:
    output.store.put(ORPHANS[0], b"of a run before")
    touch(output.store, ORPHANS[0])
    write(output.folder, ROWS | {"seed": [1, 2, 3, 44]})
    run = Run(output.store, output.manifest, media=output.media, folder=output.folder)
    (clip,) = run.manifest.load(run.recorder.plan.to_render)
    finished = run.upload(clip, attempt="77777777")
    assert clean(output, dry_run=True) == [ORPHANS[0]]
    assert clean(output, machine=Clock(run.lease.renew).machine()) == [ORPHANS[0]]
    with pytest.raises(LeaseHeld):
        clean(output, superseded=old(output), machine=Clock(run.lease.renew).machine())
    run.record(clip, finished)
    run.close()
    assert output.findings() == []


def test_a_lease_that_was_taken_again_is_as_old_as_its_run(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was uploaded before it ran out may be recorded afterwards: the run began ten minutes before its claim."""
    monkeypatch.setattr("tests.leases.ATOMIC", StoreMode(create="atomic", clock_offset_s=-600.0))
    write(output.folder, ROWS | {"seed": [1, 2, 3, 44]})
    run = Run(output.store, output.manifest, media=output.media, folder=output.folder)
    (clip,) = run.manifest.load(run.recorder.plan.to_render)
    finished = run.upload(clip, attempt="77777777")
    output.store.put(ORPHANS[0], b"of a run before")
    for key in (file.name for file in finished.files.values()):
        touch(output.store, key, at=datetime.now(UTC) - timedelta(minutes=5))
    touch(output.store, ORPHANS[0], at=datetime.now(UTC) - timedelta(minutes=15))
    assert clean(output, machine=Clock(run.lease.renew).machine()) == [ORPHANS[0]]
    run.record(clip, finished)
    run.close()
    assert output.findings() == []


def test_a_run_that_only_seemed_to_be_gone_is_told(output: Output) -> None:
    """Its lease is taken before its files go: it can record them no more."""
    write(output.folder, ROWS | {"seed": [1, 2, 3, 44]})
    run = Run(output.store, output.manifest, media=output.media, folder=output.folder)
    (clip,) = run.manifest.load(run.recorder.plan.to_render)
    finished = run.upload(clip, attempt="77777777")
    assert len(clean(output, machine=Clock().machine())) == 3
    run.lease.renew()
    with pytest.raises(StoreError, match="has taken it"):
        run.record(clip, finished)
    assert output.findings() == []


def test_records_that_no_row_has_go_on_request_with_their_files(anywhere: Output) -> None:
    before = key_of(anywhere.store, "d")
    rerun(anywhere, seed=[1, 2, 3, 44])
    assert clean(anywhere) == []
    assert anywhere.audit().num_superseded == 1
    gone = clean(anywhere, superseded=old(anywhere))
    assert gone[0] == before
    assert set(gone) == {before, *(f"clips/d.00000003.{kind}" for kind in ("mp4", "wav", "jpg"))}
    report = anywhere.audit()
    assert (report.num_records, report.num_superseded, report.orphans.count) == (4, 0, 0)
    assert anywhere.findings() == []


def test_a_clip_that_was_not_made_again_keeps_its_files(output: Output) -> None:
    """As after a run with other settings and limit=2: the other two rows' records are superseded, and all there is."""
    seeds = {"seed": [11, 22, 33, 44]}
    rerun(output, num_rows=2, **seeds)
    write(output.folder, ROWS | seeds)
    assert output.audit().num_superseded == 4
    replaced = old(output)
    gone = clean(output, superseded=replaced, dry_run=True)
    assert clean(output, superseded=old(output)) == gone
    assert {key.split("/")[1][0] for key in gone} == {"a", "b"}
    assert replaced.num_kept == 2
    assert output.store.head("clips/d.00000003.mp4") is not None
    assert output.findings() == []
    gone = clean(output, superseded=old(output, all=True))
    assert {key.split("/")[1][0] for key in gone} == {"c", "d"}
    assert output.findings() == []


def test_a_record_whose_files_are_gone_replaces_nothing(output: Output) -> None:
    rerun(output, seed=[1, 2, 3, 44])
    output.store.delete("clips/d.55550003.mp4")
    superseded = old(output)
    assert clean(output, superseded=superseded) == []
    assert superseded.num_kept == 1


def test_records_that_results_name_stay_until_a_run_has_replaced_them(output: Output) -> None:
    write(output.folder, ROWS | {"seed": [1, 2, 3, 44]})
    assert output.audit().num_superseded == 1
    assert clean(output, superseded=old(output)) == []


def test_rows_that_are_wrong_supersede_nothing(output: Output) -> None:
    rerun(output, seed=[1, 2, 3, 44])
    write(output.folder, ROWS | {"prompt": ["", "b", "c", "d"]})
    with pytest.raises(ConfigError, match=r"no clip can be made of 1 row; what they had would be superseded"):
        clean(output, superseded=old(output))


def test_a_crash_between_two_removals_leaves_nothing_but_leavings(output: Output) -> None:
    rerun(output, seed=[11, 2, 3, 44])
    num_left = 100
    for _ in range(20):
        removals = clean_output(output.store, superseded=old(output), lease=LEASE, dry_run=False)
        left = list(zip(range(2), removals, strict=False))  # the first has gone when the second is said
        removals.close()  # type: ignore[attr-defined]
        assert output.findings() == []
        if not left:
            break
        assert num_left > (num_left := len(keys(output.store)))
    report = output.audit()
    assert (report.num_records, report.num_superseded, report.orphans.count) == (4, 0, 0)


def test_half_written_files_go_when_nobody_can_be_writing_them(output: Output) -> None:
    old, young, theirs = (f"{output.store.uri}/clips/{name}" for name in (f"a#{1:016}", f"b#{2:016}", "c#3"))
    for path in (old, young, theirs):
        Path(path).write_bytes(b"half")
    for path in (old, theirs):
        os.utime(path, (LONG_AGO.timestamp(), LONG_AGO.timestamp()))
    assert output.audit().unfinished.count == 2
    assert clean(output) == [f"clips/a#{1:016}"]
    assert [Path(path).exists() for path in (old, young, theirs)] == [False, True, True]


def test_what_a_start_that_was_killed_tried_storage_out_with_goes_an_hour_later(output: Output) -> None:
    old, young = f"{PROBE}0", f"{PROBE}1"
    for key in (old, young):
        output.store.put(key, b"what time is it?")
    touch(output.store, old)
    assert clean(output) == [old]
    assert [output.store.head(key) for key in (old, young)] == [None, 16]


@pytest.mark.parametrize("at", range(14))
def test_a_run_at_work_loses_nothing(media: Media, tmp_path: Path, at: int) -> None:
    """Whatever `clean` has read when the run goes on: all that the run records has its files in the end."""
    store, folder = open_store(str(tmp_path / "out")), tmp_path / "scratch"
    folder.mkdir()
    first = Run(store, write(folder, {name: values[:1] for name, values in ROWS.items()}), media=media, folder=folder)
    first.finish(first.manifest.load([0]))
    first.close()
    store.put(ORPHANS[0], b"half a clip")
    manifest = write(folder, {name: values[:3] for name, values in ROWS.items()})
    runs: list[Run] = []

    def begin() -> Run:
        runs.append(Run(store, manifest, media=media, folder=folder))
        return runs[0]

    def renew() -> None:
        if runs and runs[0].lease.is_held:
            runs[0].lease.renew()

    script = Script(steps_of(begin), at=at)
    for _ in _without_end(script):
        busy = BusyStore(store.uri, StorageSettings()).act(script)
        list(clean_output(busy, superseded=None, lease=LEASE, dry_run=False, machine=Clock(renew).machine()))
    output = Output(store, manifest, media, folder)
    report = output.audit()
    assert [str(each) for each in report.findings.kept] == []
    assert report.states == {"SUCCEEDED": 3, "FAILED": 0, "PENDING": 0, "INVALID": 0}
    assert report.orphans.count == 0


def _without_end(script: Script) -> Iterator[None]:
    """Until the run has ended, and once more."""
    while not script.ended:
        yield
    yield
