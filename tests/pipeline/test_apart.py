"""The driver where super-resolution has groups of its own: the ways clips go, what a loss costs, and how it ends."""

from collections import Counter

import pytest

from pipeline.board import Place
from pipeline.driver import StopSignal
from pipeline.fleet import EnlargeOrder, FinishOrder, RenderOrder
from pipeline.settings import ClusterSettings, RetrySettings
from pipeline.summary import Snapshot
from pipeline.types import Clip, Stage
from tests.driving import RETRY, asked_at, drive, embedded, orders, places
from tests.fakes import SECONDS, FakeFleet, Fault, MemoryRecorder, make_clip, make_clips
from tests.pipeline.test_driver import stop_at


def mixed(count: int) -> list[Clip]:
    """Every other one goes through super-resolution."""
    return [make_clip(f"clip-{n}", row=n, large=bool(n % 2)) for n in range(count)]


def started(fleet: FakeFleet) -> Counter[Stage]:
    return Counter(fleet.crews()[crew_id] for crew_id in fleet.starts)


def test_a_clip_goes_through_both_kinds_of_group_and_comes_out_the_same() -> None:
    apart, together = MemoryRecorder(), MemoryRecorder()
    fleet, costs = FakeFleet(enlargers=1), list[Snapshot]()
    outcome = drive(mixed(6), fleet, apart, observe=costs.append)
    drive(mixed(6), FakeFleet(), together)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert {each: record.files for each, record in apart.records.items()}.keys() == together.records.keys()
    for clip_id, record in apart.records.items():
        assert record.files["mp4"].sha256 == together.records[clip_id].files["mp4"].sha256
    assert [order.drafts for order in orders(fleet, RenderOrder)].count(True) == 3
    assert {order.clip.clip_id for order in orders(fleet, EnlargeOrder)} == {"clip-1", "clip-3", "clip-5"}
    assert [each.cost_done for each in costs] == sorted(each.cost_done for each in costs)
    assert costs[-1].cost_done == costs[-1].cost
    assert all(track.draft is None for track in outcome.board.tracks.values())


def test_the_first_stage_goes_on_while_another_clip_is_enlarged() -> None:
    fleet = FakeFleet(enlargers=1, seconds={"encode": 1, "render": 5, "enlarge": 10, "finish": 2})
    drive(make_clips(4, large=True), fleet)
    assert fleet.now_s == pytest.approx(3 + 1 + 5 + 4 * 10 + 2), "the slower stage never waits"


@pytest.mark.parametrize(("large", "stages"), [(False, {"render": 2}), (True, {"render": 2, "enlarge": 2})])
def test_a_kind_of_group_that_no_clip_needs_is_not_started(large: bool, stages: dict[Stage, int]) -> None:
    fleet = FakeFleet(groups_wanted=2, enlargers=2)
    drive(make_clips(4, large=large), fleet)
    assert {stage: count for stage, count in started(fleet).items() if stage in ("render", "enlarge")} == stages


def test_no_more_groups_are_started_than_clips_go_through_them() -> None:
    fleet = FakeFleet(groups_wanted=4, enlargers=4)
    drive([make_clip("large", large=True), make_clip("small", row=1)], fleet)
    assert (started(fleet)["render"], started(fleet)["enlarge"]) == (2, 1)


def test_drafts_do_not_pile_up_and_small_clips_do_not_wait_for_them() -> None:
    fleet = FakeFleet(groups_wanted=2, enlargers=1, seconds={"encode": 0.1, "render": 1, "enlarge": 50, "finish": 1})
    drive(make_clips(12, large=True), fleet, cluster=ClusterSettings(clips_drafted=2))
    assert fleet.most_drafted <= 2 + 2, "those that were rendered when the limit was reached come on top"
    fleet = FakeFleet(enlargers=1, seconds={"encode": 0.1, "render": 1, "enlarge": 100, "finish": 1})
    recorder = MemoryRecorder()
    clips = [*make_clips(5, large=True), *(make_clip(f"small-{n}", row=9 + n) for n in range(5))]
    cluster = ClusterSettings(clips_encoded_ahead=9)

    def observe(snapshot: Snapshot) -> None:
        if fleet.now_s < 100:
            assert not {clip_id for clip_id in recorder.records if clip_id.startswith("clip")}

    drive(clips, fleet, recorder, cluster=cluster, observe=observe)
    finished = [order.clip.clip_id for order in orders(fleet, FinishOrder)]
    assert set(finished[:5]) == {f"small-{n}" for n in range(5)}


def test_small_clips_far_behind_large_ones_are_made_while_drafts_are_full() -> None:
    seconds: dict[Stage, float] = {"encode": 0.01, "render": 5, "enlarge": 10, "finish": 0.1}
    fleet = FakeFleet(enlargers=1, finishers=4, seconds=seconds)
    large, small = make_clips(20, large=True), [make_clip(f"small-{n}", row=20 + n) for n in range(20)]
    drive([*large, *small], fleet)
    assert fleet.now_s == pytest.approx(20 * 10, rel=0.1), (
        "as long as the slower kind takes, the other has time for all"
    )


@pytest.mark.parametrize("enlarge_s", [6, 60])
def test_a_kind_that_loses_its_last_place_gets_one_of_the_other_kinds(enlarge_s: int) -> None:
    """Three places are left of four; the group of the first stage was on the one that went, the others may be busy."""
    fleet = FakeFleet(
        enlargers=3,
        seconds=SECONDS | {"enlarge": enlarge_s},
        faults=[Fault(stage="render", nth=4, what="evict")],
        room=lambda now_s: 4 if now_s < 3 + 1 + 4 * 10 else 3,
    )
    outcome = drive(make_clips(20, large=True), fleet)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert len([each for each in fleet.given_up if each.startswith("enlarge")]) == 1


def test_where_one_place_is_left_for_both_kinds_the_run_says_what_is_missing() -> None:
    fleet = FakeFleet(
        enlargers=1, faults=[Fault(stage="enlarge", nth=2, what="evict")], room=lambda now_s: 1 if now_s > 20 else 2
    )
    outcome = drive(make_clips(20, large=True), fleet)
    assert outcome.exit_code == 5
    assert outcome.stopped is not None
    assert "no enlarging group is left that works" in outcome.stopped
    assert "there is no room" in outcome.stopped
    assert set(places(outcome).values()) == {Place.SUCCEEDED, Place.PENDING}


@pytest.mark.parametrize("what", ["lose", "evict", "inputs"])
def test_a_failure_of_the_second_stage_does_not_cost_the_first(what: str) -> None:
    recorder = MemoryRecorder()
    fleet = FakeFleet(enlargers=1, faults=[Fault(stage="enlarge", nth=1, what=what)])  # type: ignore[arg-type]
    outcome = drive(make_clips(3, large=True), fleet, recorder)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert len(orders(fleet, RenderOrder)) == 3
    assert len(orders(fleet, EnlargeOrder)) == 4
    assert sorted(recorder.attempts.values()) == [1, 1, 2]
    conditions = len(embedded(fleet))
    assert conditions == (6 if what == "inputs" else 4), "a negative prompt of all, and those that went down again"


def test_a_draft_that_went_down_is_made_again() -> None:
    recorder = MemoryRecorder()
    fleet = FakeFleet(enlargers=1, faults=[Fault(stage="enlarge", nth=0, what="draft")])
    drive(make_clips(2, large=True), fleet, recorder)
    assert [order.clip.clip_id for order in orders(fleet, RenderOrder)].count("clip-0") == 2
    assert set(recorder.records) == {"clip-0", "clip-1"}


def test_latents_that_went_down_are_enlarged_again_from_the_draft() -> None:
    fleet = FakeFleet(enlargers=1, faults=[Fault(stage="finish", nth=0, what="inputs")])
    drive(make_clips(2, large=True), fleet)
    assert (len(orders(fleet, RenderOrder)), len(orders(fleet, EnlargeOrder))) == (2, 3)


def test_conditions_that_were_dropped_meanwhile_are_made_for_the_draft() -> None:
    fleet = FakeFleet(enlargers=1)
    outcome = drive(make_clips(6, large=True), fleet, cluster=ClusterSettings(max_kept_conditions=0))
    assert set(places(outcome).values()) == {Place.SUCCEEDED}


def test_a_clip_that_kills_enlarging_groups_fails_at_its_cap_and_the_others_go_on() -> None:
    recorder = MemoryRecorder()
    fleet = FakeFleet(enlargers=1, poison_enlarging={"clip-1"})
    outcome = drive(make_clips(9, large=True), fleet, recorder)
    assert (outcome.exit_code, len(recorder.records)) == (None, 8)
    assert [(each.stage, each.kind) for each in recorder.failures["clip-1"]] == [("enlarge", "GroupLost")] * 3
    assert len(orders(fleet, RenderOrder)) == 9
    enlarged = [order.clip.clip_id for order in orders(fleet, EnlargeOrder)]
    first, second, third = (n for n, clip_id in enumerate(enlarged) if clip_id == "clip-1")
    assert min(second - first, third - second) > RETRY.max_crew_losses - 1, "others are tried in between"


def test_an_enlarging_group_that_kills_every_clip_stops_the_run_before_any_of_them_is_given_up() -> None:
    recorder = MemoryRecorder()
    fleet = FakeFleet(enlargers=1, poison_enlarging={f"clip-{n}" for n in range(9)})
    outcome = drive(make_clips(9, large=True), fleet, recorder)
    assert (outcome.exit_code, recorder.failures) == (5, {})
    assert "no enlarging group is left that works" in (outcome.stopped or "")
    assert set(places(outcome).values()) == {Place.PENDING}
    assert fleet.now_s < 200, "nobody waits for drafts that nobody enlarges"


def test_enlarging_groups_that_are_gone_stop_no_run_whose_clips_need_none() -> None:
    """The only large clip fails before that, for its prompt cannot be encoded."""
    faults = [Fault(stage="encode", nth=0, what="refuse")]
    recorder, fleet = MemoryRecorder(), FakeFleet(enlargers=1, always_lost={"enlarge-0"}, faults=faults)
    clips = [make_clip("large", large=True), *make_clips(3)]
    retry = RetrySettings(max_clip_deaths=1, max_crew_losses=2)
    outcome = drive(clips, fleet, recorder, cluster=ClusterSettings(prompts_a_batch=1), retry=retry)
    assert fleet.given_up == ["enlarge-0"]
    assert (outcome.exit_code, list(recorder.failures), len(recorder.records)) == (None, ["large"], 3)


def test_small_clips_are_rendered_where_enlarging_groups_never_come_up() -> None:
    fleet = FakeFleet(enlargers=1, always_lost={"enlarge-0"})
    outcome = drive(make_clips(3), fleet)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    outcome = drive(make_clips(3, large=True), FakeFleet(enlargers=1, always_lost={"enlarge-0"}))
    assert (outcome.exit_code, "no enlarging group" in (outcome.stopped or "")) == (5, True)


def test_what_is_in_flight_when_a_run_stops_is_enlarged() -> None:
    recorder, fleet, signal = MemoryRecorder(), FakeFleet(enlargers=1), StopSignal()
    outcome = drive(make_clips(9, large=True), fleet, recorder, signal=signal, observe=stop_at(2, signal, count=1))
    assert outcome.exit_code == 3
    assert set(places(outcome).values()) == {Place.SUCCEEDED, Place.PENDING}
    assert len(recorder.records) == len(orders(fleet, RenderOrder)) == len(orders(fleet, EnlargeOrder)) > 2


@pytest.mark.parametrize("what", ["lose", "inputs"])
def test_a_paused_run_finishes_its_drafts_also_after_a_loss_and_rests(what: str) -> None:
    """The encoder is at home by then, and the enlarging group of the only draft is lost during the pause."""
    faults = [Fault(stage="enlarge", nth=0, what=what)]  # type: ignore[arg-type]
    fleet, recorder = FakeFleet(enlargers=1, faults=faults), MemoryRecorder()
    rested: list[tuple[int, int]] = []

    def observe(snapshot: Snapshot) -> None:
        if 90 < fleet.now_s < 100:
            rested.append((len(snapshot.in_flight), snapshot.num_succeeded))

    outcome = drive(make_clips(4, large=True), fleet, recorder, wish=asked_at(fleet, pause=(16, 100)), observe=observe)
    assert outcome.exit_code is None
    assert set(rested) == {(0, 2)}, "the one that was enlarged, and the one that was rendered"
    assert len(recorder.records) == 4
    assert {order.clip.clip_id for order in orders(fleet, RenderOrder)} == {f"clip-{n}" for n in range(4)}
    assert len(orders(fleet, RenderOrder)) == 4


def test_conditions_of_drafts_come_before_those_of_the_queue() -> None:
    fleet = FakeFleet(enlargers=1, faults=[Fault(stage="enlarge", nth=0, what="inputs")])
    drive(make_clips(9, large=True), fleet, cluster=ClusterSettings(clips_encoded_ahead=1, max_kept_conditions=0))
    enlarged = [order.clip.clip_id for order in orders(fleet, EnlargeOrder)]
    assert enlarged.index("clip-0", 1) <= 2, "it is enlarged as soon as its conditions are there again"
