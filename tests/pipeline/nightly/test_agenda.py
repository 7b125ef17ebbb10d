"""What starts next: order, room in the night and the budget, what is too long for any night, and when all will end."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.nightly.agenda import Room, Work, duration, first_that_starts, forecast, in_order, judge
from pipeline.nightly.windows import Window

HOUR = 3600.0
WINDOW = Window(hours="22:00-06:00", timezone="UTC")
OPENING = WINDOW.night(date(2026, 11, 21)).opens_at


def work(name: str = "a", **changes: Any) -> Work:
    values: dict[str, Any] = {
        "priority": 0,
        "since": datetime(2026, 11, 20, tzinfo=UTC),
        "seconds": HOUR,
        "startup_s": 120.0,
        "clip_s": 60.0,
        "gpus": 8,
    }
    return Work(name=name, **{**values, **changes})


def room(left_h: float, **budget: float) -> Room:
    return Room(left_s=left_h * HOUR, usual_s=8 * HOUR, **budget)


def test_priority_goes_before_age_and_age_before_names() -> None:
    old = datetime(2026, 11, 1, tzinfo=UTC)
    works = [work("c"), work("b"), work("old", since=old), work("urgent", priority=5)]
    assert [each.name for each in in_order(works)] == ["urgent", "old", "b", "c"]


@pytest.mark.parametrize(
    ("seconds", "left_h", "starts", "whole"),
    [
        (HOUR, 1.0, True, True),
        (HOUR + 1, 1.0, False, True),  # would not end: it waits for a night with room
        (7.1 * HOUR, 7.0, False, True),
        (7.3 * HOUR, 7.0, True, False),  # most of a whole night: it starts, and goes on the next
        (30 * HOUR, 7.0, True, False),
        (30 * HOUR, 180 / HOUR, True, False),  # start and one clip take just as long
        (30 * HOUR, 179 / HOUR, False, True),  # less than one clip
        (None, 0.1, True, False),  # nothing is known: it starts to be measured
        (None, 0.0, False, True),
        (1.0, 0.0, False, True),
    ],
)
def test_what_would_not_end_does_not_start(seconds: float | None, left_h: float, starts: bool, whole: bool) -> None:
    verdict = judge(work(seconds=seconds, clip_s=60.0 if seconds else None), room(left_h))
    assert (verdict.starts, verdict.whole) == (starts, whole)
    assert bool(verdict.reason) == (not starts or not whole)


def test_any_may_be_split_on_request() -> None:
    assert judge(work(seconds=2 * HOUR), room(1), split=True).starts
    assert not judge(work(seconds=2 * HOUR), room(100 / HOUR), split=True).starts


def test_a_budget_is_room_too() -> None:
    eight = work(seconds=2 * HOUR, gpus=8)  # 16 GPU-hours
    assert judge(eight, room(8, budget=40, budget_left=16)).starts
    refused = judge(eight, room(8, budget=40, budget_left=15))
    assert not refused.starts
    assert "left of the budget" in refused.reason
    assert judge(eight, room(8, budget=40, budget_left=0)).reason == "the budget is spent"
    assert judge(work(seconds=2 * HOUR, gpus=1), room(8, budget=40, budget_left=15)).starts
    larger = judge(work(seconds=6 * HOUR, gpus=8), room(8, budget=40, budget_left=40))  # than any night's
    assert (larger.starts, larger.whole) == (True, False)


def test_what_must_wait_keeps_none_behind_it_waiting() -> None:
    works = [work("long", seconds=5 * HOUR, priority=9), work("short")]
    verdict = first_that_starts(works, room(2))
    assert verdict is not None
    assert verdict.work.name == "short"
    assert first_that_starts([works[0]], room(2)) is None


def test_an_end_is_foreseen_over_nights() -> None:
    works = [work("huge", seconds=20 * HOUR, priority=1), work("small", seconds=HOUR)]
    ends = forecast(works, window=WINDOW, now=OPENING, budget=None, used=0.0)
    # Two whole nights, then 4 hours and two more starts of 120 s; the small one after it.
    third = WINDOW.night(date(2026, 11, 23)).opens_at
    assert ends["huge"] == third + timedelta(seconds=4 * HOUR + 240)
    assert ends["small"] == third + timedelta(seconds=5 * HOUR + 240)


def test_a_budget_moves_the_end() -> None:
    works = [work("a", seconds=4 * HOUR), work("b", seconds=4 * HOUR)]
    free = forecast(works, window=WINDOW, now=OPENING, budget=None, used=0.0)
    assert free["b"] == OPENING + timedelta(hours=8)
    bound = forecast(works, window=WINDOW, now=OPENING, budget=40.0, used=0.0)  # 5 hours of 8 GPUs
    assert bound == {"a": OPENING + timedelta(hours=4), "b": OPENING + timedelta(days=1, hours=4)}


def test_what_is_not_known_has_no_end() -> None:
    ends = forecast([work("new", seconds=None), work("a")], window=WINDOW, now=OPENING, budget=None, used=0.0)
    assert ends == {"new": None, "a": OPENING + timedelta(hours=1)}
    never = forecast([work("a")], window=WINDOW, now=OPENING, budget=0.0, used=0.0)
    assert never == {"a": None}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(1, 200 * HOUR), st.floats(0, HOUR)), max_size=12),
    st.one_of(st.none(), st.floats(0, 200)),
    st.booleans(),
)
def test_a_forecast_ends_and_each_end_is_inside_a_window(
    given_works: list[tuple[int, float, float]], budget: float | None, split: bool
) -> None:
    works = [
        work(f"w{n}", priority=priority, seconds=startup_s + seconds, startup_s=startup_s, clip_s=seconds / 10)
        for n, (priority, seconds, startup_s) in enumerate(given_works)
    ]
    ends = forecast(works, window=WINDOW, now=OPENING, budget=budget, used=0.0, split=split)
    for end in ends.values():
        assert end is None or WINDOW.next_night(end - timedelta(seconds=1)).opens_at < end


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (3600, "1 h 00 min"), (11100, "3 h 05 min")]
)
def test_durations_for_people(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
