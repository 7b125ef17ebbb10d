"""What a run writes while it lasts and when it ends."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, LeaseLost, StoreError
from pipeline.fleet import FinishOrder
from pipeline.ledger import ClipRecord, Ledger, record_key
from pipeline.manifest.reading import Manifest
from pipeline.manifest.selection import Selection
from pipeline.plan import Plan, make_plan
from pipeline.recording import RESULTS_PERIOD_S, RunRecorder, check_output
from pipeline.results import RunFacts
from pipeline.store import Store, open_store
from pipeline.types import Clip, ClipFailure, Finished, GroupStatus
from tests.clips import MEDIA, make_clip
from tests.fakes import finished
from tests.leases import lease_of
from tests.manifests import RULES, read, write
from tests.moments import make_snapshot

CLIPS = tuple(make_clip(clip_id, row=row) for row, clip_id in enumerate(("a", "b")))
FACTS = RunFacts(
    run_id="run",
    manifest="m.parquet",
    output="out",
    model="small",
    model_hash="m" * 16,
    started_at=datetime(2026, 11, 20, tzinfo=UTC),
    ended_at=None,
    settings={},
    versions={},
)
SECONDS = {"render": 1.0}
FAILURE = ClipFailure(stage="finish", kind="EncodeError", message="ffmpeg said no", retriable=False)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def manifest_in(store: Store) -> Manifest:
    columns = ("clip_id", "prompt", "negative_prompt", "seed", "steps")
    path = Path(store.uri) / "m.parquet"
    if not path.exists():
        write(path.parent, {name: [getattr(clip, name) for clip in CLIPS] for name in columns})
    return read(path)


def recorder_of(store: Store, *, clock: Clock | None = None, retry_failed: bool = True) -> RunRecorder:
    manifest = manifest_in(store)
    ledger = Ledger(store)
    done, failed = ledger.done_keys(), ledger.failed_keys()
    plan = make_plan(manifest.index, done, failed=failed, retry_failed=retry_failed)
    recorder = recorder_for(store, manifest, plan, clock=clock)
    recorder.begin()
    return recorder


def recorder_for(
    store: Store,
    manifest: Manifest,
    plan: Plan,
    *,
    clock: Clock | None = None,
    clip_logs: bool = False,
    checks_files: bool = False,
) -> RunRecorder:
    return RunRecorder(
        store,
        manifest=manifest,
        plan=plan,
        facts=FACTS,
        media=MEDIA,
        lease=lease_of(store),
        clip_logs=clip_logs,
        checks_files=checks_files,
        clock=clock or Clock(),
    )


def done(clip: Clip, attempt: str = "0badcafe") -> Finished:
    return finished(FinishOrder(clip=clip, attempt=attempt, latents=b"latents"))


def states(store: Store) -> list[str]:
    table = pq.read_table(pa.BufferReader(store.get("results.parquet")))
    return [str(state) for state in table.column("render_state").to_pylist()]


def test_a_clip_whose_files_are_on_another_machines_disk_is_not_recorded(store: Store) -> None:
    manifest = manifest_in(store)
    recorder = recorder_for(store, manifest, make_plan(manifest.index, set()), checks_files=True)
    made = done(CLIPS[0])
    with pytest.raises(StoreError, match=r"clips/a\.0badcafe\..* is not there for the driver: .* a folder that all of"):
        recorder.record(CLIPS[0], finished=made, num_attempts=1, seconds=SECONDS)
    assert Ledger(store).done_keys() == set()
    for file in made.files.values():
        store.put(file.name, bytes(file.size_bytes))
    recorder.record(CLIPS[0], finished=made, num_attempts=1, seconds=SECONDS)
    assert len(Ledger(store).done_keys()) == 1


def test_success_is_said_last_and_only_when_every_row_has_a_record(store: Store) -> None:
    recorder = recorder_of(store)
    recorder.record(CLIPS[0], finished=done(CLIPS[0]), num_attempts=1, seconds=SECONDS)
    recorder.close()
    assert store.head("_SUCCESS.json") is None
    assert states(store) == ["SUCCEEDED", "PENDING"]

    second = recorder_of(store)
    assert second.plan.to_render.tolist() == [1]
    second.record(CLIPS[1], finished=done(CLIPS[1]), num_attempts=2, seconds=SECONDS)
    second.close()
    assert json.loads(store.get("_SUCCESS.json"))["num_clips"] == 2
    assert states(store) == ["SUCCEEDED", "SUCCEEDED"]


@pytest.mark.parametrize("name", [".", "link", "file://"])
def test_results_never_replace_the_manifest(store: Store, tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    source = f"file://{tmp_path}/results.parquet" if name == "file://" else str(tmp_path / name / "results.parquet")
    given = write(tmp_path, {"prompt": ["a"], "clip_id": ["a"]}, "results.parquet").read_bytes()
    with pytest.raises(ConfigError, match=r"results\.parquet is read as the manifest and would be replaced"):
        check_output(store, read(source))
    assert (tmp_path / "results.parquet").read_bytes() == given


def test_the_second_run_into_the_manifests_own_folder_has_nothing_left(store: Store, tmp_path: Path) -> None:
    write(tmp_path, {"prompt": ["a"], "clip_id": ["a"]})
    left = []
    for _ in range(2):
        manifest = read(tmp_path)
        plan = make_plan(manifest.index, Ledger(store).done_keys())
        recorder = recorder_for(store, manifest, plan)
        recorder.begin()
        for clip in manifest.load(plan.to_render):
            recorder.record(clip, finished=done(clip), num_attempts=1, seconds=SECONDS)
        recorder.close()
        left.append(len(plan.to_render))
    assert left == [1, 0]


def recorded(store: Store, **settings: Any) -> list[ClipRecord]:
    """All clips of the manifest beside the output, recorded; their records, read again."""
    manifest = read(Path(store.uri) / "m.parquet", **settings)
    plan = make_plan(manifest.index, ())
    recorder = recorder_for(store, manifest, plan)
    recorder.begin()
    for clip in manifest.clips:
        recorder.record(clip, finished=done(clip), num_attempts=1, seconds=SECONDS)
    recorder.close()
    return [recorder.ledger.read_record(record_key(c.clip_id, manifest.settings_hash(c))) for c in manifest.clips]


def test_a_record_says_which_texts_were_cut(store: Store, tmp_path: Path) -> None:
    write(tmp_path, {"prompt": ["w " * 650, "a"], "negative_prompt": ["x", None]})
    cut, whole = recorded(store, rules=replace(RULES, truncate_text=True))
    assert (cut.truncated, whole.truncated) == (("prompt",), ())
    assert len(cut.settings["prompt"].split()) == 640
    assert cut.row["prompt"] == "w " * 650


def test_success_says_what_was_selected(store: Store, tmp_path: Path) -> None:
    write(tmp_path, {"prompt": ["a", "b", "c"], "n": [1, 2, 3]})
    recorded(store, selection=Selection(where="n > 1", limit=1))
    success = json.loads(store.get("_SUCCESS.json"))
    assert (success["num_clips"], success["selection"]) == (1, {"where": "n > 1", "limit": 1})
    table = pq.read_table(pa.BufferReader(store.get("results.parquet")))
    assert table.select(["n", "render_state"]).to_pylist() == [{"n": 2, "render_state": "SUCCEEDED"}]


def test_success_is_taken_back_when_work_is_left_again(store: Store) -> None:
    store.put("_SUCCESS.json", b"{}")
    recorder_of(store)
    assert store.head("_SUCCESS.json") is None


def test_a_failed_clip_has_its_reason_and_is_tried_again_unless_told_not_to(store: Store) -> None:
    recorder = recorder_of(store)
    recorder.fail(CLIPS[0], failures=[FAILURE])
    recorder.close()
    table = pq.read_table(pa.BufferReader(store.get("results.parquet")))
    assert table.column("render_error").to_pylist() == ["finish: ffmpeg said no", None]
    assert len(recorder_of(store).plan.to_render) == 2
    kept = recorder_of(store, retry_failed=False)
    assert kept.plan.to_render.tolist() == [1]
    assert kept.outcomes.failures() == {"a": "gave up in an earlier run (retry.failed=true tries again)"}


def test_the_standing_record_counts_when_somebody_else_was_first(store: Store) -> None:
    late, early = recorder_of(store), recorder_of(store)
    early.record(CLIPS[0], finished=done(CLIPS[0], "11111111"), num_attempts=1, seconds=SECONDS)
    late.record(CLIPS[0], finished=done(CLIPS[0], "22222222"), num_attempts=1, seconds=SECONDS)
    late.close()
    table = pq.read_table(pa.BufferReader(store.get("results.parquet")))
    assert table.column("render_attempt").to_pylist() == ["11111111", None]


def test_results_are_rewritten_at_most_once_a_minute(store: Store) -> None:
    clock = Clock()
    recorder = recorder_of(store, clock=clock)
    store.delete("results.parquet")
    clock.now_s = RESULTS_PERIOD_S - 1
    recorder.refresh(make_snapshot(in_flight=("a",)))
    recorder.flush()
    assert store.head("results.parquet") is None
    clock.now_s = RESULTS_PERIOD_S
    recorder.refresh(make_snapshot(in_flight=("a",)))
    recorder.flush()
    assert states(store) == ["RUNNING", "PENDING"]
    store.delete("results.parquet")
    recorder.refresh(make_snapshot(in_flight=("a",)))
    recorder.flush()
    assert store.head("results.parquet") is None


def test_a_run_that_takes_a_turn_says_so_before_the_minute_is_over(store: Store) -> None:
    clock = Clock()
    recorder = recorder_of(store, clock=clock)
    store.delete("results.parquet")
    group = GroupStatus(group_id="group-0", state="busy", clip_id="a", step=3, num_steps=8)
    working = make_snapshot(in_flight=("a",), groups=(group,))
    turns = [(0.0, working, None), (5.0, working, "busy"), (9.0, working, "busy")]
    paused = make_snapshot(groups=(group,), paused="by ann")
    for now_s, moment, said in [*turns, (9.5, paused, "busy"), (10.0, paused, "paused")]:
        clock.now_s = now_s
        recorder.refresh(moment)
        recorder.flush()
        run = json.loads(store.get("run.json"))
        assert ("paused" if run["paused"] else (run["groups"] and run["groups"][0]["state"]) or None) == said
    assert store.head("results.parquet") is None  # it may be large


def test_what_was_canceled_is_said_row_by_row(store: Store) -> None:
    recorder = recorder_of(store)
    recorder.record(CLIPS[0], finished=done(CLIPS[0]), num_attempts=1, seconds=SECONDS)
    recorder.refresh(make_snapshot(num_succeeded=1, working_s=36.0))
    recorder.close(stopped="canceled by ann", canceled=True)
    assert states(store) == ["SUCCEEDED", "CANCELED"]
    run = json.loads(store.get("run.json"))
    assert run["states"] == {"PENDING": 0, "RUNNING": 0, "SUCCEEDED": 1, "FAILED": 0, "CANCELED": 1}
    assert (run["stopped"], run["clips_per_hour"], run["groups"]) == ("canceled by ann", 100.0, [])
    assert recorder_of(store).plan.to_render.tolist() == [1]


def test_a_log_of_each_attempt_is_there_when_the_run_is_closed(store: Store) -> None:
    manifest = manifest_in(store)
    plan = make_plan(manifest.index, ())
    recorder = recorder_for(store, manifest, plan, clip_logs=True)
    for n in range(200):  # more than are written meanwhile
        recorder.log(CLIPS[1], attempt=f"{n:08x}", lines=[])
    recorder.log(CLIPS[0], attempt="0badcafe", lines=["given to group-0", "done"])
    recorder.close()
    assert store.get("logs/a.0badcafe.log").decode().splitlines()[1:] == ["given to group-0", "done"]
    silent = recorder_for(store, manifest, plan)
    silent.log(CLIPS[0], attempt="11111111", lines=[])
    silent.close()
    assert store.head("logs/a.11111111.log") is None


def test_storage_that_refuses_the_results_is_fatal_at_the_ends_alone(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    recorder = recorder_of(store, clock=clock)
    broken = tmp_path / "broken"
    broken.write_text("a file where a folder is needed")
    recorder.store = open_store(str(broken / "out"))
    clock.now_s = RESULTS_PERIOD_S
    recorder.refresh(make_snapshot())
    recorder.flush()
    with pytest.raises(StoreError):
        recorder.close()


def test_a_run_that_lost_its_lease_writes_nothing_more(store: Store) -> None:
    late = recorder_of(store)
    late.record(CLIPS[0], finished=done(CLIPS[0]), num_attempts=1, seconds=SECONDS)
    recorder_of(store)  # by taking the lease over
    late.lease.renew()
    before = {entry.key: store.get(entry.key) for entry in store.list()}
    writes: list[Callable[[], object]] = [
        lambda: late.record(CLIPS[1], finished=done(CLIPS[1]), num_attempts=1, seconds=SECONDS),
        lambda: late.fail(CLIPS[1], failures=[FAILURE]),
        lambda: late.refresh(make_snapshot()),
        late.begin,
        late.close,
    ]
    for writing in writes:
        with pytest.raises(LeaseLost, match="has taken it: this run writes nothing more there"):
            writing()
    assert {entry.key: store.get(entry.key) for entry in store.list()} == before
