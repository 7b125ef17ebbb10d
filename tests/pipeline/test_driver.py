"""The driver over a fleet in this process: the ways clips go, and that every schedule of faults ends."""

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.board import Place
from pipeline.driver import StopSignal
from pipeline.fleet import FinishOrder, Gpu, RenderOrder, Text
from pipeline.policy import FREE
from pipeline.settings import ClusterSettings
from pipeline.summary import Snapshot
from pipeline.types import Stage
from tests.driving import RETRY, asked_at, drive, embedded, orders, places
from tests.fakes import FakeFleet, Fault, MemoryRecorder, What, made_of, make_clip, make_clips

ROOT = Path(__file__).parents[2]


def test_every_clip_is_recorded_once_and_nothing_is_made_twice() -> None:
    recorder, fleet = MemoryRecorder(), FakeFleet(groups_wanted=2)
    outcome = drive(make_clips(7), fleet, recorder)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert outcome.exit_code is None
    assert set(recorder.records) == {f"clip-{n}" for n in range(7)}
    assert len(orders(fleet, RenderOrder)) == len(orders(fleet, FinishOrder)) == 7
    assert set(recorder.attempts.values()) == {1}


def test_attempts_are_eight_hex_digits_and_never_shared() -> None:
    fleet = FakeFleet(faults=[Fault(stage="finish", nth=0, what="lose")])
    drive(make_clips(3), fleet)
    attempts = [order.attempt for order in orders(fleet, FinishOrder)]
    assert len(set(attempts)) == len(attempts) == 4
    assert all(len(attempt) == 8 and int(attempt, 16) >= 0 for attempt in attempts)


def test_clips_with_the_same_prompt_share_an_embedding() -> None:
    clips = [make_clip(f"clip-{n}", row=n, prompt="one prompt") for n in range(5)]
    fleet = FakeFleet()
    drive(clips, fleet)
    assert sorted(each.prompt for each in embedded(fleet) if isinstance(each, Text)) == ["blurry", "one prompt"]


def test_two_encoders_do_not_make_the_same_condition() -> None:
    fleet = FakeFleet(encoders=2)
    drive(make_clips(3), fleet)
    assert len(set(embedded(fleet))) == len(embedded(fleet)) == 4


def test_a_picture_is_a_condition_of_its_clip() -> None:
    fleet = FakeFleet()
    drive([make_clip("moving", picture="a horse")], fleet)
    (order,) = orders(fleet, RenderOrder)
    assert set(order.conditions) == {"text", "negative", "image"}


def test_the_group_renders_the_next_clip_while_the_last_is_finished() -> None:
    fleet = FakeFleet(seconds={"encode": 1, "render": 10, "finish": 9})
    drive(make_clips(4), fleet)
    # The first clip's conditions, then 4 clips without a gap, then the last finish; START_S before all of it.
    assert fleet.now_s == pytest.approx(3 + 1 + 4 * 10 + 9)


def test_groups_pause_while_latents_pile_up() -> None:
    fleet = FakeFleet(groups_wanted=2, seconds={"encode": 1, "render": 1, "finish": 50})
    cluster = ClusterSettings(clips_unfinished=2)
    drive(make_clips(12), fleet, cluster=cluster)
    # Two may wait or be finished, and those that rendered when the limit was reached come on top.
    assert fleet.most_unfinished <= 2 + 2


def test_a_clip_whose_group_dies_is_rendered_by_the_next_one() -> None:
    recorder = MemoryRecorder()
    fleet = FakeFleet(faults=[Fault(stage="render", nth=1, what="lose")])
    outcome = drive(make_clips(3), fleet, recorder)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert sorted(recorder.attempts.values()) == [1, 1, 2]
    assert fleet.starts.count("render-0") == 2


def test_a_poisonous_clip_fails_at_its_cap_and_the_others_go_on() -> None:
    recorder, fleet = MemoryRecorder(), FakeFleet(poison={"clip-1"})
    outcome = drive(make_clips(6), fleet, recorder)
    assert outcome.exit_code is None
    assert places(outcome)["clip-1"] is Place.FAILED
    assert len(recorder.records) == 5
    assert [failure.kind for failure in recorder.failures["clip-1"]] == ["GroupLost"] * 3
    assert "killed" in recorder.failures["clip-1"][-1].message


def test_two_poisonous_clips_and_no_others_fail_and_do_not_stop_the_run() -> None:
    recorder, fleet = MemoryRecorder(), FakeFleet(poison={"clip-0", "clip-1"})
    outcome = drive(make_clips(2), fleet, recorder)
    assert (outcome.exit_code, set(recorder.failures)) == (None, {"clip-0", "clip-1"})


def test_a_group_that_kills_every_clip_stops_the_run_before_any_of_them_is_given_up() -> None:
    recorder, fleet = MemoryRecorder(), FakeFleet(poison={f"clip-{n}" for n in range(9)})
    outcome = drive(make_clips(9), fleet, recorder)
    assert outcome.exit_code == 5
    assert "no render group is left that works" in (outcome.stopped or "")
    assert not recorder.failures
    assert set(places(outcome).values()) == {Place.PENDING}


def test_a_group_that_never_comes_up_leaves_its_work_to_the_others() -> None:
    fleet = FakeFleet(groups_wanted=2, always_lost={"render-0"})
    outcome = drive(make_clips(4), fleet)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert fleet.starts.count("render-0") == RETRY.max_crew_losses


@pytest.mark.parametrize(("kind", "exit_code"), [("WeightsError", 2), ("StoreError", 5)])
def test_what_another_start_cannot_help_stops_the_run_at_once(kind: str, exit_code: int) -> None:
    fleet = FakeFleet(fatal_start={"render-0": kind})
    outcome = drive(make_clips(2), fleet)
    assert outcome.exit_code == exit_code
    assert fleet.starts.count("render-0") == 1


def test_a_lost_finisher_costs_the_finishing_alone() -> None:
    recorder, fleet = MemoryRecorder(), FakeFleet(faults=[Fault(stage="finish", nth=0, what="lose")])
    drive(make_clips(2), fleet, recorder)
    assert len(orders(fleet, RenderOrder)) == 2
    assert len(orders(fleet, FinishOrder)) == 3
    assert recorder.attempts == {"clip-0": 2, "clip-1": 1}


def test_a_clip_that_kills_finishers_fails_at_its_cap() -> None:
    faults = [Fault(stage="finish", nth=n, what="lose") for n in range(3)]
    recorder, fleet = MemoryRecorder(), FakeFleet(faults=faults)
    drive(make_clips(1), fleet, recorder)
    assert [failure.stage for failure in recorder.failures["clip-0"]] == ["finish"] * 3


def test_a_clip_that_cannot_be_made_fails_at_once_with_its_reason() -> None:
    recorder, fleet = MemoryRecorder(), FakeFleet(faults=[Fault(stage="finish", nth=1, what="refuse")])
    outcome = drive(make_clips(3), fleet, recorder)
    assert list(recorder.failures) == ["clip-1"]
    assert recorder.failures["clip-1"][0].kind == "ClipError"
    assert outcome.exit_code is None


def test_a_prompt_that_kills_encoders_fails_its_clips_and_no_others() -> None:
    clips = [make_clip("bad", prompt="boom"), make_clip("bad too", row=1, prompt="boom"), make_clip("good", row=2)]
    recorder, fleet = MemoryRecorder(), FakeFleet(poison={"boom"})
    outcome = drive(clips, fleet, recorder)
    assert set(recorder.failures) == {"bad", "bad too"}
    assert outcome.exit_code is None


def test_an_encoder_that_dies_of_everything_stops_the_run_and_fails_no_clip() -> None:
    fleet = FakeFleet(poison={"blurry", *(f"a prompt for clip-{n}" for n in range(5))})
    recorder = MemoryRecorder()
    outcome = drive(make_clips(5), fleet, recorder)
    assert (outcome.exit_code, recorder.failures) == (5, {})


@pytest.mark.parametrize("stage", ["encode", "finish"])
def test_storage_that_says_no_to_an_actor_stops_the_run(stage: Any) -> None:
    recorder, fleet = MemoryRecorder(), FakeFleet(faults=[Fault(stage=stage, nth=0, what="store")])
    outcome = drive(make_clips(3), fleet, recorder)
    assert outcome.exit_code == 5
    assert not recorder.failures


def test_storage_that_says_no_to_the_driver_stops_the_run() -> None:
    recorder, fleet = MemoryRecorder(broken_at=1), FakeFleet()
    outcome = drive(make_clips(5), fleet, recorder)
    assert (outcome.exit_code, outcome.stopped) == (5, "cannot write: no space left")
    assert len(recorder.records) == 1
    assert list(places(outcome).values()).count(Place.SUCCEEDED) == 1


def test_latents_that_went_down_are_rendered_again() -> None:
    recorder, fleet = MemoryRecorder(), FakeFleet(faults=[Fault(stage="finish", nth=0, what="inputs")])
    drive(make_clips(2), fleet, recorder)
    assert len(orders(fleet, RenderOrder)) == 3
    assert set(recorder.records) == {"clip-0", "clip-1"}


def test_conditions_that_went_down_are_made_again() -> None:
    recorder, fleet = MemoryRecorder(), FakeFleet(faults=[Fault(stage="render", nth=0, what="inputs")])
    drive(make_clips(1), fleet, recorder)
    assert len(embedded(fleet)) == 4  # text and negative, twice
    assert set(recorder.records) == {"clip-0"}


def stop_at(num_succeeded: int, signal: StopSignal, *, count: int) -> Callable[[Snapshot], None]:
    def observe(snapshot: Snapshot) -> None:
        if snapshot.num_succeeded >= num_succeeded and snapshot.in_flight:
            signal.count = max(signal.count, count)

    return observe


def test_a_signal_lets_what_is_in_flight_finish_and_starts_nothing_new() -> None:
    recorder, fleet, signal = MemoryRecorder(), FakeFleet(), StopSignal()
    outcome = drive(make_clips(9), fleet, recorder, signal=signal, observe=stop_at(2, signal, count=1))
    assert outcome.exit_code == 3
    assert Counter(places(outcome).values()) == {Place.SUCCEEDED: 3, Place.PENDING: 6}  # one was rendering


def test_a_second_signal_stops_at_once() -> None:
    recorder, fleet, signal = MemoryRecorder(), FakeFleet(), StopSignal()
    outcome = drive(make_clips(9), fleet, recorder, signal=signal, observe=stop_at(2, signal, count=2))
    assert outcome.exit_code == 3
    assert len(recorder.records) == 2


def test_the_grace_time_ends() -> None:
    fleet, signal = FakeFleet(seconds={"encode": 1, "render": 10, "finish": 1000}), StopSignal(count=1)
    outcome = drive(make_clips(3), fleet, signal=signal)
    assert outcome.exit_code == 3
    fleet, signal = FakeFleet(seconds={"encode": 1, "render": 10, "finish": 1000}), StopSignal()
    drive(make_clips(3), fleet, signal=signal, observe=stop_at(0, signal, count=1))
    assert fleet.now_s < 150  # 100 s of grace, not the finisher's 1000


def test_whoever_looks_on_says_why_it_ends_and_how_long_it_may_take() -> None:
    signal = StopSignal(reason="the end of the window", grace_s=30)
    fleet = FakeFleet(seconds={"encode": 1, "render": 10, "finish": 1000})
    outcome = drive(make_clips(3), fleet, signal=signal, observe=stop_at(0, signal, count=1))
    assert (outcome.exit_code, outcome.stopped) == (3, "stopped by the end of the window")
    assert fleet.now_s < 50  # 30 s of its own grace, not the cluster's 100


def test_a_window_that_ends_while_a_run_stops_for_another_reason_shortens_its_grace() -> None:
    signal = StopSignal(reason="the end of the window", grace_s=30)
    fleet = FakeFleet(seconds={"encode": 1, "render": 10, "finish": 1000})

    def observe(snapshot: Snapshot) -> None:
        signal.count = int(fleet.now_s > 20)

    outcome = drive(make_clips(3), fleet, signal=signal, observe=observe, wish=asked_at(fleet, cancel=(10, 9_999)))
    assert (outcome.exit_code, outcome.stopped) == (3, "canceled by somebody")
    assert 45 < fleet.now_s < 55


def test_the_driver_needs_neither_ray_nor_torch() -> None:
    """Imported for real, with both made impossible to import."""
    script = (
        "import sys\nfor name in ('ray', 'torch', 'hydra', 'omegaconf'): sys.modules[name] = None\n"
        "import pipeline.driver, pipeline.progress, pipeline.settings\nprint('imported')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "imported\n", done.stderr


def test_neighbours_and_order_do_not_change_what_a_clip_is_made_of() -> None:
    alone, among = MemoryRecorder(), MemoryRecorder()
    drive(make_clips(4)[2:3], FakeFleet(), alone)
    drive(make_clips(4)[::-1], FakeFleet(groups_wanted=2), among)
    assert alone.records["clip-2"].files["mp4"].sha256 == among.records["clip-2"].files["mp4"].sha256


WHATS: dict[Stage, tuple[What, ...]] = {
    "encode": ("lose", "lose_start", "evict", "refuse", "trip"),
    "render": ("lose", "lose_start", "evict", "refuse", "inputs"),
    "enlarge": ("lose", "lose_start", "evict", "refuse", "inputs", "draft"),
    "finish": ("lose", "lose_start", "evict", "refuse", "trip", "inputs"),
}
FAULTS = st.sampled_from(sorted(WHATS)).flatmap(
    lambda stage: st.builds(Fault, stage=st.just(stage), nth=st.integers(0, 12), what=st.sampled_from(WHATS[stage]))
)


@settings(max_examples=150, deadline=None)
@given(
    faults=st.lists(FAULTS, max_size=12),
    num_clips=st.integers(1, 8),
    num_groups=st.integers(1, 3),
    num_enlargers=st.integers(0, 2),
    large=st.sets(st.integers(0, 7)),
    num_finishers=st.integers(1, 2),
    poison=st.sets(st.integers(0, 7), max_size=3),
    prompts=st.integers(1, 4),
    max_kept=st.integers(0, 6),
    a_batch=st.integers(1, 3),
    num_nodes=st.integers(1, 3),
    is_first_bad=st.booleans(),
    num_gpus=st.integers(0, 3),
    is_first_gpu_bad=st.booleans(),
    joins_at_s=st.lists(st.integers(0, 60), max_size=2).map(sorted),
    pause_s=st.tuples(st.integers(0, 60), st.integers(0, 30)),
    cancel_s=st.none() | st.integers(0, 60),
)
def test_every_schedule_of_faults_ends_with_each_clip_in_one_place(
    faults: list[Fault],
    num_clips: int,
    num_groups: int,
    num_enlargers: int,
    large: set[int],
    num_finishers: int,
    poison: set[int],
    prompts: int,
    max_kept: int,
    a_batch: int,
    num_nodes: int,
    is_first_bad: bool,
    num_gpus: int,
    is_first_gpu_bad: bool,
    joins_at_s: list[float],
    pause_s: tuple[float, float],
    cancel_s: int | None,
) -> None:
    clips = [make_clip(f"clip-{n}", row=n, prompt=f"prompt {n % prompts}", large=n in large) for n in range(num_clips)]
    recorder = MemoryRecorder()
    fleet = FakeFleet(
        groups_wanted=num_groups,
        enlargers=num_enlargers,
        finishers=num_finishers,
        faults=faults,
        poison={f"clip-{n}" for n in poison},
        nodes=[f"node-{n}" for n in range(num_nodes)],
        bad_nodes={"node-0"} if is_first_bad else (),
        gpus=num_gpus,
        bad_gpus={Gpu(node="node-0", number="0")} if is_first_gpu_bad else (),
        joins_at_s=joins_at_s,
    )
    cancel = {} if cancel_s is None else {"cancel": (cancel_s, math.inf)}
    wish = asked_at(fleet, **cancel, pause=(pause_s[0], pause_s[0] + pause_s[1]))
    cluster = ClusterSettings(max_kept_conditions=max_kept, prompts_a_batch=a_batch)
    outcome = drive(clips, fleet, recorder, cluster=cluster, wish=wish)
    where = places(outcome)
    assert set(recorder.records) == {clip_id for clip_id, place in where.items() if place is Place.SUCCEEDED}
    assert set(recorder.failures) == {clip_id for clip_id, place in where.items() if place is Place.FAILED}
    if outcome.exit_code is None:
        assert set(where.values()) <= {Place.SUCCEEDED, Place.FAILED}
    for clip_id, record in recorder.records.items():
        assert record.files["mp4"].sha256 == made_of(outcome.board.tracks[clip_id].clip)
    for track in outcome.board.tracks.values():
        caps = Counter(each.stage for each in track.failures if each.retriable and each.kind not in FREE)
        assert max(caps.values(), default=0) <= 3
    attempts = [order.attempt for order in orders(fleet, FinishOrder)]
    assert len(set(attempts)) == len(attempts)
