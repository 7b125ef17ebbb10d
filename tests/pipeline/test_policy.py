"""The table at the head of policy.py, row by row."""

import pytest

from pipeline.errors import ConfigError
from pipeline.fleet import Gpu
from pipeline.policy import Blocked, Streaks, Strikes, Verdict, judge, places_behind, too_many_failed
from pipeline.settings import RetrySettings
from pipeline.types import ClipFailure, Stage

RETRY = RetrySettings(
    max_clip_deaths=3, max_crew_losses=4, max_encode_attempts=2, max_finish_attempts=2, max_evictions=10
)


def failure(stage: Stage, kind: str = "GroupLost", *, retriable: bool = True) -> ClipFailure:
    return ClipFailure(stage=stage, kind=kind, message="why", retriable=retriable)


@pytest.mark.parametrize(
    ("history", "verdict"),
    [
        ([failure("render")] * 2, Verdict.RETRY),
        ([failure("render")] * 3, Verdict.FAIL),
        ([failure("finish", "CrewLost")], Verdict.RETRY),
        ([failure("finish", "CrewLost")] * 2, Verdict.FAIL),
        ([failure("encode", "CrewLost")] * 2, Verdict.FAIL),
        # Each stage counts for itself.
        ([failure("render")] * 2 + [failure("finish", "RuntimeError")], Verdict.RETRY),
        ([failure("finish", "EncodeError", retriable=False)], Verdict.FAIL),
        ([failure("render", "ClipError", retriable=False)], Verdict.FAIL),
        ([failure("finish", "StoreError", retriable=False)], Verdict.STOP),
        # What nobody can help costs nothing, but has an end.
        ([failure("render", "Preempted")] * 4, Verdict.RETRY),
        ([failure("render", "Preempted"), failure("finish", "LatentsLost")] * 2 + [failure("render")], Verdict.RETRY),
        ([failure("render", "Preempted")] * 9 + [failure("render")] * 2, Verdict.RETRY),
        ([failure("render", "Preempted")] * 9 + [failure("render")] * 3, Verdict.FAIL),
        ([failure("finish", "LatentsLost")] * 9, Verdict.RETRY),
        ([failure("finish", "LatentsLost")] * 5 + [failure("render", "ConditionsLost")] * 5, Verdict.FAIL),
        # Storage that says no is the run's matter, however often the clip failed before.
        ([failure("finish", "CrewLost"), failure("finish", "StoreError")], Verdict.STOP),
        ([failure("encode", "WeightsError", retriable=False)], Verdict.STOP),
    ],
)
def test_a_clips_history_decides_what_becomes_of_it(history: list[ClipFailure], verdict: Verdict) -> None:
    assert judge(history, RETRY) is verdict


def test_the_same_suspect_counts_once_and_different_ones_add_up() -> None:
    streaks = Streaks(RETRY)
    assert all(streaks.lost("group-0", "poisonous") for _ in range(10))
    assert [streaks.lost("group-0", clip) for clip in ("b", "c", "d")] == [True, True, False]


def test_each_loss_without_a_suspect_counts() -> None:
    streaks = Streaks(RETRY)
    assert [streaks.lost("group-0", None) for _ in range(4)] == [True, True, True, False]


def test_work_done_ends_a_streak_of_that_crew_alone() -> None:
    streaks = Streaks(RETRY)
    for crew_id in ("group-0", "group-1"):
        for clip in ("a", "b", "c"):
            streaks.lost(crew_id, clip)
    streaks.worked("group-0")
    assert streaks.lost("group-0", "d")
    assert not streaks.lost("group-1", "d")


def test_a_poisonous_clip_is_dropped_before_its_group() -> None:
    with pytest.raises(ConfigError, match=r"max_crew_losses is 3, expected more than retry\.max_clip_deaths \(3\)"):
        RetrySettings(max_clip_deaths=3, max_crew_losses=3)


def test_a_requeued_clip_lets_enough_others_pass_to_tell_it_from_a_broken_group() -> None:
    streaks = Streaks(RETRY)
    streaks.lost("group-0", "first")
    survivors = [streaks.lost("group-0", f"other-{n}") for n in range(places_behind(RETRY))]
    assert survivors[-1] is False, "the group must reach its cap before the first clip is tried again"


def test_an_eviction_is_not_a_loss_until_there_were_too_many() -> None:
    streaks = Streaks(RETRY)
    assert [streaks.evicted("group-0") for _ in range(10)] == [True] * 9 + [False]
    streaks.worked("group-0")
    assert streaks.evicted("group-0")
    assert streaks.lost("group-0", "a")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def struck(*suspects: object, stage: Stage = "render", clock: Clock | None = None) -> Strikes:
    strikes = Strikes(RETRY, clock=clock or Clock())
    for suspect in suspects:
        strikes.strike("bad", stage, suspect)
    return strikes


def test_three_different_clips_lost_on_a_node_block_it() -> None:
    assert struck("a", "b").blocked().nodes == frozenset()
    assert struck("a", "b", "c").blocked().nodes == {"bad"}
    assert struck(None, None, None).blocked().nodes == {"bad"}


def test_one_clip_strikes_a_node_once() -> None:
    assert struck("a", "a", "a", "b").blocked().nodes == frozenset()


def test_stages_count_for_themselves() -> None:
    strikes = struck("a", "b")
    strikes.strike("bad", "finish", "c")
    strikes.worked(["bad"], "finish")
    assert strikes.blocked().nodes == frozenset()
    strikes.strike("bad", "render", "c")
    strikes.worked(["bad"], "finish")
    assert strikes.blocked().nodes == {"bad"}


CARD, OTHER = Gpu(node="bad", number="3"), Gpu(node="bad", number="0")


def test_three_different_clips_lost_on_one_gpu_block_that_gpu_and_not_its_node() -> None:
    strikes = Strikes(RETRY, clock=Clock())
    for clip in ("a", "a", "b"):
        strikes.strike("bad", "render", clip, gpu=CARD)
    assert strikes.blocked() == Blocked()
    strikes.strike("bad", "render", "c", gpu=CARD)
    assert strikes.blocked() == Blocked(gpus=frozenset({CARD}))
    for clip in ("d", "e"):
        strikes.strike("bad", "render", clip, gpu=OTHER)
    assert strikes.blocked().nodes == frozenset()
    strikes.strike("bad", "render", "f")
    assert strikes.blocked() == Blocked(nodes=frozenset({"bad"}), gpus=frozenset({CARD}))


def test_losses_on_several_gpus_of_a_node_block_the_node() -> None:
    strikes = Strikes(RETRY, clock=Clock())
    for number in range(3):
        strikes.strike("bad", "render", f"clip-{number}", gpu=Gpu(node="bad", number=str(number)))
    assert strikes.blocked() == Blocked(nodes=frozenset({"bad"}))


def test_work_on_one_gpu_takes_no_strike_of_another_back() -> None:
    clock = Clock()
    strikes = Strikes(RETRY, clock=clock)
    for clip in ("a", "b", "c"):
        strikes.strike("bad", "render", clip, gpu=CARD)
        strikes.worked(["bad", OTHER], "render")
    assert strikes.blocked().gpus == {CARD}
    clock.now_s = RETRY.forgive_s
    assert strikes.blocked() == Blocked()
    strikes.strike("bad", "render", "a", gpu=CARD)
    strikes.strike("bad", "render", "b", gpu=CARD)
    strikes.worked([CARD], "render")
    strikes.strike("bad", "render", "c", gpu=CARD)
    assert strikes.blocked().gpus == frozenset()


def test_work_done_takes_one_strike_back() -> None:
    strikes = struck("a", "b")
    strikes.worked(["bad"], "render")
    strikes.strike("bad", "render", "c")
    assert strikes.blocked().nodes == frozenset()
    strikes.strike("bad", "render", "d")
    assert strikes.blocked().nodes == {"bad"}


def test_strikes_are_forgiven_after_a_time() -> None:
    clock = Clock()
    strikes = struck("a", "b", "c", clock=clock)
    clock.now_s = RETRY.forgive_s - 1
    assert strikes.blocked().nodes == {"bad"}
    clock.now_s += 1
    assert strikes.blocked().nodes == frozenset()


@pytest.mark.parametrize(
    ("limits", "failed", "succeeded", "stops"),
    [
        ({"first_failed": 5}, 4, 0, False),
        ({"first_failed": 5}, 5, 0, True),
        ({"first_failed": 5}, 50, 1, False),
        ({"first_failed": None}, 99, 0, False),
        ({"max_failed": 3}, 3, 9, False),
        ({"max_failed": 3}, 4, 9, True),
        ({"max_failed": 0}, 1, 9, True),
        ({"max_failed_percent": 10.0}, 10, 9, False),
        ({"max_failed_percent": 10.0}, 11, 9, True),
        ({"max_failed_percent": 0.0}, 1, 9, True),
        ({"max_failed": 3}, 100, 0, False),  # of 100: nothing is left to save
    ],
)
def test_a_run_with_too_many_failures_is_not_worth_going_on_with(
    limits: dict[str, float], failed: int, succeeded: int, stops: bool
) -> None:
    retry = RetrySettings(**limits)  # type: ignore[arg-type]  # of several types
    reason = too_many_failed(failed=failed, succeeded=succeeded, total=100, retry=retry)
    assert (reason is not None) == stops
    assert reason is None or all(str(f"{value:g}") in reason for value in limits.values())
