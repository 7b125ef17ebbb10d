"""A seed is a storm: the same one every time, with every kind of fault, early enough to be survived."""

from collections import Counter

import pytest

from tests.chaos.schedule import COUNTS, LAST, UPLOADS, draw


@pytest.mark.parametrize("num_clips", [40, 200])
def test_a_seed_gives_the_same_schedule(num_clips: int) -> None:
    assert draw(3, num_clips=num_clips) == draw(3, num_clips=num_clips)
    assert draw(3, num_clips=num_clips) != draw(4, num_clips=num_clips)


@pytest.mark.parametrize(("num_clips", "column"), [(40, 0), (200, 1)])
def test_every_kind_comes_as_often_as_the_table_says(num_clips: int, column: int) -> None:
    counts = Counter(fault.kind for fault in draw(1, num_clips=num_clips))
    assert counts == +Counter({kind: each[column] for kind, each in COUNTS.items()})


@pytest.mark.parametrize("seed", range(20))
def test_faults_come_in_order_and_before_the_end(seed: int) -> None:
    faults = draw(seed, num_clips=200)
    clips = [fault.count / (UPLOADS if fault.after == "upload" else 1) for fault in faults]
    assert clips == sorted(clips)
    assert clips[0] > 0
    assert clips[-1] <= LAST * 200
    assert all(0 <= fault.pick < 1 and fault.times >= 1 for fault in faults)
