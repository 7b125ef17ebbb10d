"""A card that somebody else uses is told before weights are loaded."""

from collections.abc import Callable

import pytest

from pipeline.card import LOOK_S, DirtyCard, check_card

GB = 10**9


def looks(*free: float) -> Callable[[], tuple[int, int]]:
    """Free and total bytes at each look; the last stays."""
    left = list(free)
    return lambda: (int((left.pop(0) if len(left) > 1 else left[0]) * GB), 80 * GB)


def test_a_card_that_is_free_is_taken_at_once() -> None:
    slept: list[float] = []
    check_card(looks(79.1), name="a", least_free=0.9, sleep=slept.append)
    assert slept == []


def test_memory_of_a_process_that_was_just_killed_is_waited_for() -> None:
    slept: list[float] = []
    check_card(looks(20, 50, 79), name="a", least_free=0.9, wait_s=10, sleep=slept.append)
    assert slept == [LOOK_S, LOOK_S]


def test_a_dirty_card_is_named_with_its_numbers() -> None:
    slept: list[float] = []
    where = "10.0.0.2 (node 5713e3b9, process 12, GPU 3)"
    with pytest.raises(DirtyCard, match=r"GPU 3\) has 71.9 of 80.0 GB free .* expected at least 90%"):
        check_card(looks(71.9), name=where, least_free=0.9, wait_s=10, sleep=slept.append)
    assert sum(slept) == 10
