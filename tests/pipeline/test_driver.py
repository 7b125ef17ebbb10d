"""The driver over a fleet in this process: the ways clips go, and that every schedule of faults ends."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.board import Place
from pipeline.driver import Driver, Outcome, Oversight, StopSignal
from pipeline.fleet import EncodeOrder, FinishOrder, RenderOrder, Text
from pipeline.policy import FREE
from pipeline.settings import ClusterSettings, RetrySettings
from pipeline.summary import ENVIRONMENT, STOPPED, Snapshot
from pipeline.types import Clip, Stage, Wish
from tests.fakes import FakeFleet, Fault, MemoryRecorder, What, make_clip, make_clips

CLUSTER = ClusterSettings(stop_grace_s=100)
RETRY = RetrySettings()
ROOT = Path(__file__).parents[2]
MOST_TURNS = 5_000  # of the loop: a run that has not ended by then never will


def drive(
    clips: Sequence[Clip],
    fleet: FakeFleet,
    recorder: MemoryRecorder | None = None,
    *,
    signal: StopSignal | None = None,
    observe: Callable[[Snapshot], None] = lambda snapshot: None,
    cluster: ClusterSettings = CLUSTER,
    retry: RetrySettings = RETRY,
    wish: Callable[[], Wish] = Wish,
    num_done: int = 0,
) -> Outcome:
    turns = Counter[str]()

    def watch(snapshot: Snapshot) -> None:
        turns["all"] += 1
        assert turns["all"] < MOST_TURNS, "the run does not end"
        observe(snapshot)

    outcome = Driver(
        clips,
        fleet=fleet,
        recorder=recorder if recorder is not None else MemoryRecorder(),
        cluster=cluster,
        retry=retry,
        oversight=Oversight(stop=signal or StopSignal(), wish=wish, observe=watch),
        num_done=num_done,
        clock=fleet.clock,
    ).run()
    assert fleet.closed
    return outcome


def places(outcome: Outcome) -> dict[str, Place]:
    return {clip_id: track.place for clip_id, track in outcome.board.tracks.items()}


def orders(fleet: FakeFleet, kind: type[Any]) -> list[Any]:
    return [order for _, order in fleet.offers if isinstance(order, kind)]


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
    conditions = [order.condition for order in orders(fleet, EncodeOrder)]
    assert sorted(each.prompt for each in conditions if isinstance(each, Text)) == ["blurry", "one prompt"]


def test_two_encoders_do_not_make_the_same_condition() -> None:
    fleet = FakeFleet(encoders=2)
    drive(make_clips(3), fleet)
    conditions = [order.condition for order in orders(fleet, EncodeOrder)]
    assert len(set(conditions)) == len(conditions) == 4


def test_a_picture_is_a_condition_of_its_clip() -> None:
    fleet = FakeFleet()
    drive([make_clip("moving", picture="a horse")], fleet)
    (order,) = orders(fleet, RenderOrder)
    assert set(order.conditions) == {"text", "negative", "image"}


def test_the_group_renders_the_next_clip_while_the_last_is_finished() -> None:
    fleet = FakeFleet(seconds={"encode": 1, "render": 10, "finish": 9})
    drive(make_clips(4), fleet)
    # 2 conditions, then 4 clips without a gap, then the last finish; START_S before all of it.
    assert fleet.now_s == pytest.approx(3 + 2 + 4 * 10 + 9)


def test_groups_pause_while_latents_pile_up() -> None:
    fleet = FakeFleet(groups_wanted=2, seconds={"encode": 1, "render": 1, "finish": 50})
    cluster = ClusterSettings(clips_unfinished=2)
    drive(make_clips(12), fleet, cluster=cluster)
    # Two may wait or be finished, and those that rendered when the limit was reached come on top.
    assert fleet.most_unfinished <= 2 + 2


def test_conditions_are_made_a_bounded_number_of_clips_ahead() -> None:
    fleet = FakeFleet(seconds={"encode": 0.1, "render": 10, "finish": 1})
    ahead: list[int] = []

    def observe(snapshot: Snapshot) -> None:
        ahead.append(len(orders(fleet, EncodeOrder)) - len(orders(fleet, RenderOrder)))

    drive(make_clips(30), fleet, observe=observe, cluster=ClusterSettings(clips_encoded_ahead=4))
    assert 4 <= max(ahead) <= 1 + 5 + 1  # "blurry", the window of 1 + 4 clips, the one that renders


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
    assert len(orders(fleet, EncodeOrder)) == 4  # text and negative, twice
    assert set(recorder.records) == {"clip-0"}


def stop_at(num_succeeded: int, signal: StopSignal, *, count: int) -> Callable[[Snapshot], None]:
    def observe(snapshot: Snapshot) -> None:
        if snapshot.num_succeeded >= num_succeeded and snapshot.in_flight:
            signal.count = max(signal.count, count)

    return observe


def test_a_node_that_goes_costs_its_clip_nothing() -> None:
    recorder = MemoryRecorder()
    faults = [Fault(stage="render", nth=n, what="evict") for n in range(5)]
    drive(make_clips(2), FakeFleet(faults=faults), recorder, retry=RetrySettings(max_clip_deaths=1))
    assert set(recorder.records) == {"clip-0", "clip-1"}


def test_a_clip_that_nodes_never_keep_is_given_up_at_last() -> None:
    recorder = MemoryRecorder()
    faults = [Fault(stage="render", nth=n, what="evict") for n in range(4)]
    outcome = drive(make_clips(2), FakeFleet(faults=faults), recorder, retry=RetrySettings(max_evictions=4))
    assert set(recorder.failures) == {"clip-0"}
    assert outcome.exit_code == ENVIRONMENT  # nor was there a node that kept its group


def test_a_node_that_fails_everything_gets_nothing_more_and_costs_no_clip() -> None:
    recorder = MemoryRecorder()
    fleet = FakeFleet(nodes=("bad", "good", "fine"), bad_nodes={"bad"}, groups_wanted=3, encoders=2, finishers=2)
    outcome = drive(make_clips(20), fleet, recorder)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert fleet.avoided == {"bad"}


def test_a_blocked_node_is_used_again_after_a_time() -> None:
    fleet = FakeFleet(nodes=("bad", "good", "fine"), bad_nodes={"bad"}, groups_wanted=3)
    drive(make_clips(40), fleet, retry=RetrySettings(forgive_s=60, max_crew_losses=9))
    assert fleet.avoided == frozenset()


def test_a_group_without_room_waits_as_long_as_others_work() -> None:
    fleet = FakeFleet(groups_wanted=2, unplaced={"render-0"})
    outcome = drive(make_clips(30), fleet)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert fleet.starts.count("render-0") > RETRY.max_crew_losses


def test_a_run_without_room_for_any_group_stops() -> None:
    outcome = drive(make_clips(3), FakeFleet(unplaced={"render-0"}))
    assert outcome.exit_code == ENVIRONMENT
    assert outcome.stopped is not None
    assert "there is no room" in outcome.stopped


def test_a_group_on_a_node_that_joins_is_given_clips() -> None:
    fleet = FakeFleet(joins_at_s=(20,))
    outcome = drive(make_clips(8), fleet)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert sum(crew_id == "joined-0" for crew_id, _ in fleet.offers) >= 3


def test_a_run_whose_first_clips_all_fail_stops() -> None:
    clips = make_clips(12)
    recorder = MemoryRecorder()
    fleet = FakeFleet(faults=[Fault(stage="render", nth=n, what="refuse") for n in range(12)])
    outcome = drive(clips, fleet, recorder, retry=RetrySettings(first_failed=4))
    assert outcome.exit_code == ENVIRONMENT
    assert outcome.stopped is not None
    assert "first 4 clips have all failed" in outcome.stopped
    assert len(recorder.failures) == 4


def test_clips_that_earlier_runs_finished_prove_that_it_can_be_done() -> None:
    fleet = FakeFleet(faults=[Fault(stage="render", nth=n, what="refuse") for n in range(6)])
    outcome = drive(make_clips(7), fleet, retry=RetrySettings(first_failed=4), num_done=1)
    assert outcome.exit_code is None


def asked_at(fleet: FakeFleet, **wishes: tuple[float, float]) -> Callable[[], Wish]:
    """Kinds of wish, each for a span of the fleet's time."""

    def wish() -> Wish:
        for kind, (begin, end) in wishes.items():
            if begin <= fleet.now_s < end:
                return Wish(kind="pause" if kind == "pause" else "cancel", said="by somebody")
        return Wish()

    return wish


def test_a_pause_finishes_what_is_in_flight_gives_the_places_back_and_goes_on() -> None:
    fleet, recorder = FakeFleet(groups_wanted=2), MemoryRecorder()
    seen: list[tuple[float, str | None, int, int]] = []

    def look_on(snapshot: Snapshot) -> None:
        seen.append((fleet.now_s, snapshot.paused, len(snapshot.in_flight), len(fleet.released)))

    outcome = drive(make_clips(8), fleet, recorder, wish=asked_at(fleet, pause=(20, 200)), observe=look_on)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert outcome.exit_code is None
    assert any(paused == "by somebody" and in_flight for _, paused, in_flight, _ in seen)
    resting = [row for row in seen if 60 < row[0] < 200]
    assert resting
    assert all(in_flight == 0 and released == 4 for _, _, in_flight, released in resting)
    assert set(recorder.attempts.values()) == {1}


def test_nothing_that_is_lost_while_paused_is_started_again() -> None:
    fleet = FakeFleet(groups_wanted=2, faults=[Fault(stage="render", nth=1, what="lose")])
    drive(make_clips(6), fleet, wish=asked_at(fleet, pause=(6, 100)))
    assert set(fleet.released) == {"render-0", "encode-0", "finish-0"}
    assert fleet.starts.count("render-1") == 2


def test_a_canceled_run_finishes_what_is_in_flight_and_leaves_the_rest() -> None:
    fleet, recorder = FakeFleet(), MemoryRecorder()
    outcome = drive(make_clips(8), fleet, recorder, wish=asked_at(fleet, cancel=(20, 9_999)))
    assert (outcome.exit_code, outcome.canceled, outcome.stopped) == (STOPPED, True, "canceled by somebody")
    assert 0 < len(recorder.records) < 8
    assert outcome.board.count(Place.SUCCEEDED, Place.PENDING) == 8


def test_a_paused_run_can_be_canceled_and_stopped() -> None:
    fleet = FakeFleet()
    wish = asked_at(fleet, pause=(6, 50), cancel=(50, 9_999))
    assert drive(make_clips(8), fleet, wish=wish).canceled
    signal = StopSignal()

    def stop(snapshot: Snapshot) -> None:
        signal.count = int(other.now_s > 60)

    other = FakeFleet()
    assert (
        drive(make_clips(8), other, signal=signal, observe=stop, wish=asked_at(other, pause=(6, 9_999))).exit_code == 3
    )


def test_each_attempt_leaves_a_log_that_says_what_and_where() -> None:
    recorder = MemoryRecorder()
    fleet = FakeFleet(faults=[Fault(stage="render", nth=0, what="lose"), Fault(stage="finish", nth=0, what="trip")])
    drive(make_clips(1), fleet, recorder)
    texts = ["\n".join(lines) for _, lines in recorder.logs.values()]
    assert ["render failed, retry" in text for text in texts] == [True, False, False]
    assert ["finish failed, retry: RuntimeError: trip" in text for text in texts] == [False, True, False]
    assert texts[-1].endswith(": done")
    assert "given to render-0 on node node-0" in texts[0]
    assert "render-0 rendered it in 10.00 s" in texts[1]
    assert recorder.records["clip-0"].attempt == list(recorder.logs)[-1]


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
    num_finishers=st.integers(1, 2),
    poison=st.sets(st.integers(0, 7), max_size=3),
    prompts=st.integers(1, 4),
    max_kept=st.integers(0, 3),
    num_nodes=st.integers(1, 3),
    is_first_bad=st.booleans(),
    joins_at_s=st.lists(st.integers(0, 60), max_size=2).map(sorted),
    pause_s=st.tuples(st.integers(0, 60), st.integers(0, 30)),
)
def test_every_schedule_of_faults_ends_with_each_clip_in_one_place(
    faults: list[Fault],
    num_clips: int,
    num_groups: int,
    num_finishers: int,
    poison: set[int],
    prompts: int,
    max_kept: int,
    num_nodes: int,
    is_first_bad: bool,
    joins_at_s: list[float],
    pause_s: tuple[float, float],
) -> None:
    clips = [make_clip(f"clip-{n}", row=n, prompt=f"prompt {n % prompts}") for n in range(num_clips)]
    recorder = MemoryRecorder()
    fleet = FakeFleet(
        groups_wanted=num_groups,
        finishers=num_finishers,
        faults=faults,
        poison={f"clip-{n}" for n in poison},
        nodes=[f"node-{n}" for n in range(num_nodes)],
        bad_nodes={"node-0"} if is_first_bad else (),
        joins_at_s=joins_at_s,
    )
    wish = asked_at(fleet, pause=(pause_s[0], pause_s[0] + pause_s[1]))
    outcome = drive(clips, fleet, recorder, cluster=ClusterSettings(max_kept_conditions=max_kept), wish=wish)
    where = places(outcome)
    assert set(recorder.records) == {clip_id for clip_id, place in where.items() if place is Place.SUCCEEDED}
    assert set(recorder.failures) == {clip_id for clip_id, place in where.items() if place is Place.FAILED}
    if outcome.exit_code is None:
        assert set(where.values()) <= {Place.SUCCEEDED, Place.FAILED}
    for track in outcome.board.tracks.values():
        caps = Counter(each.stage for each in track.failures if each.retriable and each.kind not in FREE)
        assert max(caps.values(), default=0) <= 3
    attempts = [order.attempt for order in orders(fleet, FinishOrder)]
    assert len(set(attempts)) == len(attempts)
