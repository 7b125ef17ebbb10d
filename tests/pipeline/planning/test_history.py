"""What a run leaves for later plans: sums by kind, small, and nothing that could stop a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.compose import compose_values
from jobs.settings import run_settings
from jobs.words import read_words
from pipeline.planning.history import (
    HISTORY,
    NUM_KINDS,
    Hardware,
    Kind,
    KindTimes,
    RunHistory,
    RunTimes,
    hardware_of,
    kind_of,
    parse,
    read_history,
    to_json,
)
from pipeline.store import open_store
from pipeline.summary import Snapshot
from pipeline.types import Clip, ClipFailure
from tests.clips import make_clip, make_record
from tests.moments import make_snapshot
from tests.outputs import facts

CPU = Hardware(device="cpu", cpu="a CPU", cores=2, nodes=1)
KIND = Kind(resolution="64P", ratio="16:9", duration_s=3, steps=8, guided=True, image=False)
SECONDS = {"condition": 0.5, "render": 4.0, "decode": 1.0, "encode": 0.75, "upload": 0.25}


def run_history(run_id: str = "r1", **changes: object) -> RunHistory:
    values: dict[str, object] = {
        "run_id": run_id,
        "model": "small",
        "model_hash": "m" * 16,
        "hardware": CPU,
        "versions": {"torch": "2"},
        "tp": 2,
        "groups": 1,
        "threads": 1,
        "encoders": 1,
        "finishers": 1,
        "num_rendered": 10,
        "num_failed": 0,
        "stopped": False,
        "startup_s": 10.0,
        "driving_s": 52.0,
        "closing_s": 1.0,
        "kinds": (KindTimes(kind=KIND, count=10, seconds=SECONDS, num_bytes=1000.0),),
    }
    return RunHistory(**(values | changes))  # type: ignore[arg-type]


class Kept:
    def __init__(self) -> None:
        self.told: list[str] = []

    def record(self, clip: Clip, **_: object) -> None:
        self.told.append(f"recorded {clip.clip_id}")

    def fail(self, clip: Clip, **_: object) -> None:
        self.told.append(f"failed {clip.clip_id}")

    def log(self, clip: Clip, **_: object) -> None:
        self.told.append(f"logged {clip.clip_id}")

    def refresh(self, snapshot: Snapshot) -> None:
        self.told.append(f"refreshed {snapshot.in_flight}")


def test_what_is_recorded_is_passed_on_and_summed_by_kind() -> None:
    kept = Kept()
    times = RunTimes(kept, began=0.0)
    clips = [make_clip("a"), make_clip("b"), make_clip("c", duration_s=4)]
    for n, clip in enumerate(clips):
        finished = make_record(clip).finished
        times.record(clip, finished=finished, num_attempts=1, seconds={"render": 2.0 + n, "decode": 1.0})
    failure = ClipFailure(stage="render", kind="GroupLost", message="gone", retriable=True)
    times.fail(make_clip("d"), failures=[failure])
    times.log(make_clip("d"), attempt="0badcafe", lines=["lost"])
    times.refresh(make_snapshot(in_flight=("e",)))
    assert kept.told == ["recorded a", "recorded b", "recorded c", "failed d", "logged d", "refreshed ('e',)"]
    kinds = {each.kind.duration_s: each for each in times.kinds()}
    assert kinds[3].count == 2
    assert kinds[3].seconds["render"] == pytest.approx(2.5)
    assert kinds[4].seconds == {"condition": 0, "render": 4, "enlarge": 0, "decode": 1, "encode": 0, "upload": 0}
    assert kinds[3].num_bytes == 9  # three files of three bytes each


def test_only_the_commonest_kinds_are_kept() -> None:
    times = RunTimes(Kept(), began=0.0)
    for steps in [*range(1, NUM_KINDS + 20), 5, 5]:
        clip = make_clip(steps=steps)
        times.record(clip, finished=make_record(clip).finished, num_attempts=1, seconds={})
    kept = times.kinds()
    assert len(kept) == NUM_KINDS
    assert (kept[0].kind.steps, kept[0].count) == (5, 3)


def test_a_clip_says_its_kind() -> None:
    assert kind_of(make_clip()) == KIND
    assert not kind_of(make_clip(negative_prompt=None)).guided


def test_it_comes_back_as_it_was_written() -> None:
    gpus = Hardware(device="cuda", cards={"H100": 8}, cpu="x", cores=128, nodes=1)
    placed: dict[str, Any] = {"text": "cards", "text_cards": 2, "decode": "card", "finishers": 3}
    for written in (run_history(), run_history(hardware=gpus, stopped=True), run_history(hardware=gpus, **placed)):
        assert parse(to_json(written)) == written
    assert written.cards == 2 + 2 + 3


def test_a_run_of_before_had_text_and_decoders_on_cpus() -> None:
    old = json.loads(to_json(run_history()))
    for name in ("text", "text_cards", "decode"):
        del old[name]
    assert parse(json.dumps(old).encode()) == run_history()


def test_a_run_leaves_what_it_had_of_cards(tmp_path: Path) -> None:
    times, store = RunTimes(Kept(), began=0.0), open_store(str(tmp_path))
    times.placed(device="cuda", nodes=[{"CPU": 8.0, "GPU": 8.0}], groups={"render": 2, "enlarge": 1}, tp=2, own=False)
    times.record(make_clip(), finished=make_record(make_clip()).finished, num_attempts=1, seconds={"render": 1.0})
    values = compose_values("render", read_words(["manifest=m.parquet", "output=o", "placing.text=offloaded"]))
    settings = run_settings({**values, "placing": {**values["placing"], "decode": "card"}})
    times.leave(store, facts=facts(store, tmp_path, run_id="r1"), settings=settings, last=make_snapshot(), seconds=9.0)
    (left,) = read_history(store)
    assert (left.groups, left.enlarging_groups) == (2, 1)
    assert (left.text, left.decode, left.cards) == ("offloaded", "card", 3 * 2 + 1 + 1)


def test_the_newest_are_read_and_damaged_ones_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(str(tmp_path))
    for run_id in ("20260101-a", "20260103-c", "20260102-b"):
        store.put(f"{HISTORY}/{run_id}.json", to_json(run_history(run_id)))
    for name, data in (("x1", b"{"), ("x2", b"[]"), ("x3", b'{"format": 99}'), ("x4", b'{"format": 1, "kinds": 3}')):
        store.put(f"{HISTORY}/{name}.json", data)
    assert [run.run_id for run in read_history(store)] == ["20260103-c", "20260102-b", "20260101-a"]
    assert sum("is no run's history" in line for line in caplog.messages) == 4


def test_an_output_without_history_has_none(tmp_path: Path) -> None:
    assert read_history(open_store(str(tmp_path / "new"))) == []


def test_hardware_is_what_ray_says_of_its_nodes() -> None:
    nodes = [
        {"CPU": 64.0, "GPU": 8.0, "accelerator_type:H100": 1.0},
        {"CPU": 64.0, "GPU": 8.0, "accelerator_type:H100": 1.0},
    ]
    found = hardware_of("cuda", [*nodes, {"CPU": 8.0}], own=False)
    assert (found.cards, found.cores, found.nodes) == ({"H100": 16}, 136, 3)
    assert hardware_of("cpu", nodes, own=False).cards == {}


def test_likeness_is_the_kind_of_card_or_the_same_cpu() -> None:
    eight, one = (Hardware(device="cuda", cards={"H100": n}, cpu="x", cores=8 * n, nodes=1) for n in (8, 1))
    other = Hardware(device="cuda", cards={"A100": 8}, cpu="x", cores=8, nodes=1)
    assert eight.is_like(one)
    assert not eight.is_like(other)
    assert not CPU.is_like(Hardware(device="cpu", cpu="a CPU", cores=4, nodes=1))
