"""`status`, `logs`, `cancel`, `pause`, `resume` and `requeue` as a person meets them, without a cluster."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.cli import main
from pipeline.control import PAUSE, ask, cancel_key, new_request, read_request
from pipeline.lease.looking import look
from pipeline.ledger import Ledger
from pipeline.manifest.reading import Manifest
from pipeline.plan import make_plan
from pipeline.recording import RunRecorder
from pipeline.run_log import run_log_key
from pipeline.store import Store, open_store
from pipeline.types import ClipFailure, GroupStatus
from tests.clips import MEDIA
from tests.leases import lease_of
from tests.manifests import read, write
from tests.moments import make_snapshot
from tests.pipeline.test_recording import FACTS, SECONDS, done

IDS = ("done", "lost-1", "lost-2", "empty", "left")
COMMANDS = ("status", "logs", "cancel", "pause", "resume", "requeue")
Lines = Callable[..., list[str]]


class Live:
    """A run that has the output, and what it has done so far."""

    def __init__(self, folder: Path, place: str | None = None) -> None:
        self.store: Store = open_store(place or str(folder / "out"))
        self.manifest: Manifest = read(write(folder, {"clip_id": list(IDS), "prompt": list(IDS)}))
        self.lease = lease_of(self.store)
        seen = look(self.store)
        assert seen is not None
        self.run_id = seen.holder.run_id
        self.recorder = RunRecorder(
            self.store,
            manifest=self.manifest,
            plan=make_plan(self.manifest.index, ()),
            facts=replace(FACTS, run_id=self.run_id),
            media=MEDIA,
            lease=self.lease,
            clip_logs=True,
        )
        self.recorder.begin()

    def work(self) -> None:
        first, *lost, empty, _ = self.manifest.clips
        self.recorder.log(first, attempt="0badcafe", lines=["given to group-0", "done"])
        self.recorder.record(first, finished=done(first), num_attempts=1, seconds=SECONDS)
        for n, clip in enumerate(lost):
            self.recorder.log(clip, attempt=f"1badcaf{n}", lines=[f"lost group-{n}"])
            self.recorder.fail(clip, failures=[failure(f"group-{n}: no sign for {n}.5 s")])
        self.recorder.fail(empty, failures=[failure("no = such > picture", stage="encode")])
        self.store.put(run_log_key(self.run_id), b"the first line\nthe second\n")

    def end(self, **how: object) -> None:
        self.recorder.close(**how)  # type: ignore[arg-type]
        self.lease.release()


def failure(message: str, *, stage: str = "render") -> ClipFailure:
    return ClipFailure(stage=stage, kind="GroupLost", message=message, retriable=False)  # type: ignore[arg-type]


@pytest.fixture
def live(tmp_path: Path) -> Live:
    found = Live(tmp_path)
    found.work()
    return found


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Lines:
    def run(store: Store, *words: str, code: int = 0) -> list[str]:
        command, *rest = words
        capsys.readouterr()
        assert main([command, f"output={store.uri}", *rest]) == code
        printed = capsys.readouterr()
        return (printed.out if code == 0 else printed.err).splitlines()

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_where_no_run_was_is_a_mistake_and_nothing_is_written(
    command: str, tmp_path: Path, said: Lines
) -> None:
    (line,) = said(open_store(str(tmp_path / "typo")), command, code=2)
    assert line == f"happyhorse: {tmp_path}/typo: no run has been at work there, expected the output of a render"
    assert not (tmp_path / "typo").exists()


def test_the_status_of_a_run_at_work(live: Live, said: Lines) -> None:
    group = GroupStatus(group_id="group-0", state="busy", clip_id="left", step=3, num_steps=8, num_clips=2)
    live.recorder._clock = lambda: 1e9
    live.recorder.refresh(make_snapshot(in_flight=("left",), groups=(group,), num_succeeded=1, working_s=36.0))
    live.recorder.flush()
    head, *lines = said(live.store, "status")
    assert head.startswith(f"{live.store.uri}: run {live.run_id} is at work (")
    assert lines[:3] == [
        "  clips     5: 1 RUNNING, 1 SUCCEEDED, 3 FAILED",
        "  pace      100 clips an hour",
        "  group-0   busy with left, step 3 of 8; 2 clips so far",
    ]
    assert lines[3].startswith("  written   ")
    assert lines[4:] == [
        "  2 failed: render: group-#: no sign for # s (lost-1, lost-2)",
        "  1 failed: encode: no = such > picture (empty)",
    ]


def test_the_status_for_machines(live: Live, said: Lines) -> None:
    live.end(stopped="stopped by a signal")
    values = json.loads("\n".join(said(live.store, "status", "format=json")))
    assert (values["run_id"], values["live"], values["lease"]) == (live.run_id, False, "ended")
    assert values["states"]["SUCCEEDED"] == 1
    assert [each["count"] for each in values["failures"]] == [2, 1]
    assert values["stopped"] == "stopped by a signal"
    assert values["asked"] == {}


def test_the_status_of_one_that_was_killed(live: Live, said: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.lease.looking.is_gone", lambda holder: True)
    head, *_ = said(live.store, "status")
    assert "is no more, and did not say that it ended: it was killed. The same render command goes on" in head


def test_a_run_is_canceled_by_name_and_once(live: Live, said: Lines) -> None:
    first = said(live.store, "cancel", "reason=wrong prompts, all = of > them")
    request = read_request(live.store, cancel_key(live.run_id))
    assert request is not None
    assert request.reason == "wrong prompts, all = of > them"
    assert first[0] == f"{live.store.uri}: run {live.run_id} is canceled {request}"
    assert said(live.store, "cancel", "reason=once more") == first
    assert any(line.startswith(f"  canceled  {request}") for line in said(live.store, "status"))


def test_where_nothing_is_at_work_nothing_is_canceled(live: Live, said: Lines) -> None:
    live.end()
    (line,) = said(live.store, "cancel")
    assert line.startswith(f"{live.store.uri}: nothing is at work there, so nothing is canceled; the last run, ")
    assert f"{live.run_id}, ended at {datetime.now(UTC):%Y-%m-%dT}" in line
    assert not list(live.store.list("control"))


def test_a_pause_stands_until_it_is_taken_back(live: Live, said: Lines) -> None:
    paused = said(live.store, "pause", "reason=007")
    request = read_request(live.store, PAUSE)
    assert request is not None
    assert request.reason == "007"
    assert paused == [
        f"{live.store.uri}: paused {request}",
        f"run {live.run_id} finishes what is in flight, gives its groups back and waits",
        f"`happyhorse resume output={live.store.uri}` lets it go on",
    ]
    assert said(live.store, "pause") == paused
    assert "which it has not noticed yet" in said(live.store, "status")[-1]
    assert said(live.store, "cancel")[-1].startswith(f"the output stays paused, {request}")
    assert said(live.store, "resume") == [
        f"{live.store.uri}: no longer paused; it was {request}",
        "the run that is at work goes on",
    ]
    assert said(live.store, "resume") == [f"{live.store.uri} was not paused"]
    assert read_request(live.store, PAUSE) is None


def test_a_pause_may_be_taken_back_where_no_run_was(tmp_path: Path, said: Lines) -> None:
    store = open_store(str(tmp_path))
    ask(store, PAUSE, new_request(None))
    assert said(store, "resume")[1] == "nothing is at work there; a render may start again"
    assert not list(store.list())


def test_logs_of_a_run_and_of_a_clip(live: Live, said: Lines) -> None:
    live.end()
    assert said(live.store, "logs") == ["the first line", "the second"]
    head, *lines = said(live.store, "logs", "clip=lost-1")
    assert head.startswith(f"clip lost-1, attempt 1badcaf0, run {live.run_id}, ended ")
    assert lines == ["lost group-0", "failed lost-1: render: group-0: no sign for 0.5 s"]
    *lines, last = said(live.store, "logs", "clip=done")
    assert lines[1:] == ["given to group-0", "done"]
    assert last.startswith("recorded in records/done.")
    assert last.endswith(": attempt 0badcafe, 1 in all")


def test_what_has_no_log_is_said(live: Live, said: Lines) -> None:
    (line,) = said(live.store, "logs", "clip=left", code=2)
    assert line.endswith("logs/left.*.log: no attempt at such a clip has ended yet")
    live.end()
    (line,) = said(live.store, "logs", "clip=left", code=2)
    assert line.endswith("logs/left.*.log: there is none, nor a record or a failure of a clip left")
    live.store.delete(run_log_key(live.run_id))
    (line,) = said(live.store, "logs", code=2)
    assert line.startswith(
        f"happyhorse: {live.store.uri}/logs/run.{live.run_id}.log is not there: run {live.run_id} ended"
    )


def test_a_log_is_followed_to_its_end(live: Live, said: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [b"the first line\nthe second\nthe third\n", b"(3 older lines are left out)\nthe fourth\nthe fifth\n"]

    def sleep(seconds: float) -> None:
        if texts:
            live.store.put(run_log_key(live.run_id), texts.pop(0))
        else:
            live.end()

    monkeypatch.setattr("jobs.logs.sleep", sleep)
    *lines, last = said(live.store, "logs", "follow=true")
    assert lines == [f"the {nth}" for nth in ("first line", "second", "third", "fourth", "fifth")]
    assert last.startswith(f"run {live.run_id} ended at ")


def test_a_clip_is_followed_attempt_by_attempt(live: Live, said: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    (clip,) = [each for each in live.manifest.clips if each.clip_id == "lost-1"]
    attempts = ["22222222", "33333333"]

    def sleep(seconds: float) -> None:
        if attempts:
            attempt = attempts.pop(0)
            live.store.put(f"logs/{clip.clip_id}.{attempt}.log", f"{attempt} was tried\n".encode())
        else:
            live.end()

    monkeypatch.setattr("jobs.logs.sleep", sleep)
    lines = said(live.store, "logs", "clip=lost-1", "follow=true")
    assert lines[1:4] == ["lost group-0", "22222222 was tried", "33333333 was tried"]
    assert lines[-1].startswith("failed lost-1: ")


def test_a_run_that_has_yet_to_begin_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[Live] = []

    def sleep(seconds: float) -> None:
        if not began:
            began.append(Live(tmp_path))
            began[0].work()
            began[0].end()

    monkeypatch.setattr("jobs.logs.sleep", sleep)
    assert main(["logs", f"output={tmp_path}/out", "follow=true"]) == 0
    assert capsys.readouterr().out.splitlines() == ["the first line", "the second"]


def test_whoever_has_seen_enough_of_a_log_may_leave(live: Live, said: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.logs.sleep", interrupt)
    assert said(live.store, "logs", "follow=true") == ["the first line", "the second"]


def test_clips_that_failed_for_one_reason_are_requeued(live: Live, said: Lines) -> None:
    live.end()
    dry = said(live.store, "requeue", "reason=no sign for", "dry_run=true")
    assert sorted(dry[:2]) == [
        "would requeue lost-1: render: group-0: no sign for 0.5 s",
        "would requeue lost-2: render: group-1: no sign for 1.5 s",
    ]
    assert dry[2:] == [f"{live.store.uri}: 2 clips would be requeued"]
    assert failed(live) == {"lost-1", "lost-2", "empty"}
    lines = said(live.store, "requeue", "reason=no sign for")
    assert lines[2:] == [f"{live.store.uri}: 2 clips requeued", "the next run tries them again"]
    assert failed(live) == {"empty"}
    plan = make_plan(
        live.manifest.index, Ledger(live.store).done_keys(), failed=Ledger(live.store).failed_keys(), retry_failed=False
    )
    assert [IDS[n] for n in plan.to_render.tolist()] == ["lost-1", "lost-2", "left"]
    assert said(live.store, "requeue", "reason=no sign for")[-1] == f"{live.store.uri}: 0 clips requeued"


def test_one_clip_is_requeued_and_what_cannot_be_read_goes_with_all(live: Live, said: Lines) -> None:
    live.store.put("failed/broken.0123456789abcdef.json", b"{")
    said(live.store, "requeue", "clip=empty", "reason== such > p")
    assert failed(live) == {"lost-1", "lost-2", "broken"}
    assert said(live.store, "requeue")[-1] == f"run {live.run_id} is at work; the next one tries them again"
    assert failed(live) == set()


def test_an_id_that_nothing_has_requeues_nothing(live: Live, said: Lines) -> None:
    live.end()
    for state in ("FAILED", "CANCELED"):
        (line,) = said(live.store, "requeue", "clip=lost-1,nobody,who", f"state={state}", code=2)
        assert f"clip: {live.store.uri} has no nobody, who, expected clip_ids of rows, records or failures" in line
        assert line.endswith("; nothing was requeued")
    (line,) = said(live.store, "requeue", "clip=" + ",".join(f"x{n}" for n in range(7)), code=2)
    assert "has no x0, x1, x2, x3, x4 and 2 more, " in line
    assert failed(live) == {"lost-1", "lost-2", "empty"}
    for there in ("done", "left"):  # a record, a row
        assert said(live.store, "requeue", f"clip={there}") == [f"{live.store.uri}: 0 clips requeued"]
    assert len(said(live.store, "requeue", "clip=lost-1,lost-2")) == 4
    assert failed(live) == {"empty"}


def test_canceled_clips_need_no_requeue(live: Live, said: Lines) -> None:
    live.end(canceled=True)
    (line,) = said(live.store, "requeue", "state=CANCELED")
    assert "canceled clips need no requeue" in line
    assert failed(live) == {"lost-1", "lost-2", "empty"}
    (line,) = said(live.store, "requeue", "state=DONE", code=2)
    assert line == 'happyhorse: state: got "DONE", expected one of FAILED, CANCELED'


def failed(live: Live) -> set[str]:
    return {key.removeprefix("failed/").rsplit(".", 2)[0] for key in Ledger(live.store).failure_keys()}


def test_all_of_it_works_when_nothing_but_the_output_is_left(live: Live, tmp_path: Path, said: Lines) -> None:
    live.end(canceled=True)
    elsewhere = tmp_path / "elsewhere" / "out"
    shutil.copytree(live.store.uri, elsewhere)
    shutil.rmtree(live.store.uri)
    moved = open_store(str(elsewhere))
    for command in COMMANDS:
        assert said(moved, command)


def test_a_bucket_is_as_good_as_a_folder(moto_s3: str, tmp_path: Path, said: Lines) -> None:
    live = Live(tmp_path, f"{moto_s3}/out")
    live.work()
    assert "is canceled by" in said(live.store, "cancel")[0]
    said(live.store, "pause")
    assert "  paused    by " in said(live.store, "status")[-2]
    said(live.store, "resume")
    live.end(canceled=True)
    assert said(live.store, "logs", "clip=lost-1")[1] == "lost group-0"
    assert said(live.store, "requeue")[-2] == f"{moto_s3}/out: 3 clips requeued"
    assert failed(live) == set()
