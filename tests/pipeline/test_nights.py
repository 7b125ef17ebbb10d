"""What a driver does in a bad night: nodes that go and come, limits, pauses, and what each attempt leaves."""

import pytest

from pipeline.board import Place
from pipeline.driver import StopSignal
from pipeline.fleet import FinishOrder, Gpu, Order, Refused
from pipeline.settings import ClusterSettings, RetrySettings
from pipeline.summary import ENVIRONMENT, STOPPED, Snapshot
from pipeline.types import ClipFailure
from tests.driving import RETRY, asked_at, drive, places
from tests.fakes import FakeFleet, Fault, MemoryRecorder, make_clip, make_clips


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


def test_a_gpu_that_fails_everything_gets_nothing_more_and_its_node_goes_on() -> None:
    bad = Gpu(node="node-0", number="1")
    fleet = FakeFleet(gpus=4, bad_gpus={bad}, groups_wanted=3)
    outcome = drive(make_clips(20), fleet)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert fleet.avoided_gpus == {bad}
    assert not fleet.avoided
    assert fleet.given_up == []


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


def test_a_run_starts_no_more_groups_than_it_has_clips_left() -> None:
    fleet = FakeFleet(groups_wanted=8, joins_at_s=(5,))
    shown: set[str] = set()
    drive(make_clips(1), fleet, observe=lambda snapshot: shown.update(each.group_id for each in snapshot.groups))
    assert [crew_id for crew_id in fleet.starts if fleet.crews()[crew_id] == "render"] == ["render-0"]
    assert "joined-0" in fleet.crews()
    assert shown == {"render-0"}


def test_a_group_that_was_not_needed_takes_the_place_of_one_that_is_given_up() -> None:
    fleet = FakeFleet(groups_wanted=3, always_lost={"render-0"})
    outcome = drive(make_clips(1), fleet)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert fleet.given_up == ["render-0"]
    assert (fleet.starts.count("render-1"), fleet.starts.count("render-2")) == (1, 0)


def test_a_run_whose_first_clips_all_fail_stops() -> None:
    clips = make_clips(12)
    recorder = MemoryRecorder()
    fleet = FakeFleet(faults=[Fault(stage="render", nth=n, what="refuse") for n in range(12)])
    outcome = drive(clips, fleet, recorder, retry=RetrySettings(first_failed=4))
    assert outcome.exit_code == ENVIRONMENT
    assert outcome.stopped is not None
    assert "first 4 clips have all failed" in outcome.stopped
    assert len(recorder.failures) == 4


def test_a_prompt_of_all_clips_that_fails_leaves_those_beyond_the_limit_as_they_were() -> None:
    clips = [make_clip(f"clip-{n}", row=n, prompt="the same") for n in range(9)]
    recorder, fleet = MemoryRecorder(), FakeFleet(faults=[Fault(stage="encode", nth=0, what="refuse")])
    alone = ClusterSettings(prompts_a_batch=1)
    outcome = drive(clips, fleet, recorder, retry=RetrySettings(first_failed=3), cluster=alone)
    assert outcome.exit_code == ENVIRONMENT
    assert len(recorder.failures) == len(recorder.logs) == 3


def test_clips_that_earlier_runs_finished_prove_that_it_can_be_done() -> None:
    fleet = FakeFleet(faults=[Fault(stage="render", nth=n, what="refuse") for n in range(6)])
    outcome = drive(make_clips(7), fleet, retry=RetrySettings(first_failed=4), num_done=1)
    assert outcome.exit_code is None


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


def test_a_pause_is_no_work() -> None:
    """Clips an hour and the time left are those of the time in which it worked."""
    fleet = FakeFleet()
    seen: list[tuple[str | None, float]] = []
    drive(
        make_clips(8),
        fleet,
        wish=asked_at(fleet, pause=(20, 500)),
        observe=lambda snapshot: seen.append((snapshot.paused, snapshot.working_s)),
    )
    assert max(working_s for _, working_s in seen) < 150
    assert fleet.now_s > 500


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


@pytest.mark.parametrize("groups", [3, 4])
def test_a_finisher_that_fails_oddly_with_every_clip_is_as_good_as_lost(groups: int) -> None:
    """It answers at once and would take clip after clip from the one that works, or one clip until that is given up."""
    recorder = MemoryRecorder()
    fleet = OddFleet(nodes=("fine", "odd"), groups_wanted=groups, finishers=2)
    outcome = drive(make_clips(20), fleet, recorder)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert "odd" in fleet.avoided


def test_one_odd_failure_costs_the_finisher_its_process() -> None:
    fleet = FakeFleet(faults=[Fault(stage="finish", nth=0, what="trip")])
    outcome = drive(make_clips(3), fleet)
    assert set(places(outcome).values()) == {Place.SUCCEEDED}
    assert fleet.starts.count("finish-0") == 2


def test_what_a_stop_leaves_unfinished_says_so_in_its_log() -> None:
    recorder, signal = MemoryRecorder(), StopSignal()

    def stop(snapshot: Snapshot) -> None:
        signal.count = 2 if snapshot.in_flight else 0

    outcome = drive(make_clips(3), FakeFleet(), recorder, signal=signal, observe=stop)
    assert len(outcome.board.in_flight()) == 1
    ((clip_id, lines),) = recorder.logs.values()
    assert clip_id == "clip-0"
    assert lines[-1].endswith("left unfinished: stopped by a signal")


def test_a_run_that_stops_starts_no_group_on_a_node_that_joins_nor_on_what_a_pause_gave_back() -> None:
    signal = StopSignal()
    fleet = FakeFleet(joins_at_s=(13,), groups_wanted=2, faults=[Fault(stage="render", nth=1, what="lose")])
    fleet.seconds = {"encode": 1.0, "render": 6.0, "finish": 50.0}

    def stop(snapshot: Snapshot) -> None:
        signal.count = int(fleet.now_s >= 12.5)

    outcome = drive(make_clips(6), fleet, signal=signal, observe=stop, wish=asked_at(fleet, pause=(6, 20)))
    assert outcome.exit_code == STOPPED
    assert fleet.now_s > 30, "a clip was in flight long enough for both"
    assert "joined-0" in fleet.crews()
    assert "joined-0" not in fleet.starts
    assert fleet.starts.count("render-1") == 1


class OddFleet(FakeFleet):
    """Its finishers on the node `odd` raise what nobody knows."""

    def offer(self, crew_id: str, order: Order, /) -> None:
        super().offer(crew_id, order)
        crew = self._crews[crew_id]
        if isinstance(order, FinishOrder) and crew.node == "odd":
            failure = ClipFailure(stage="finish", kind="PermissionError", message="no folder", retriable=True)
            crew.answer, crew.due_s = Refused(crew_id=crew_id, failure=failure), self.now_s + 0.1
