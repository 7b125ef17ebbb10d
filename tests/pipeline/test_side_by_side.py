"""Streams through threads: in order, never far ahead, and an error ends them."""

import threading
from collections.abc import Iterator

import pytest

from pipeline.side_by_side import AHEAD, side_by_side


def test_results_come_in_order_and_items_are_taken_as_needed() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    for number, result in enumerate(side_by_side(lambda n: n * n, items(), threads=3)):
        assert result == number * number
        assert taken <= number + 3 * AHEAD + 1


def test_they_are_worked_on_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=30)
    assert len(list(side_by_side(lambda n: both.wait(), range(2), threads=2))) == 2


def test_an_error_is_raised_where_its_result_is_due() -> None:
    results = side_by_side(lambda n: 1 // n, [2, 1, 0, 5], threads=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
