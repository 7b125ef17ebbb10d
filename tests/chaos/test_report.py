"""What was noticed too late is said, and what storage kept the driver from is no fault of its own."""

import pytest

from tests.chaos.faults import Hit
from tests.chaos.report import late
from tests.chaos.schedule import Fault, Kind
from tests.chaos.storm import Outcome


def hit(kind: Kind, at_s: float, *, detected_s: float | None = None, recovered_s: float | None = None) -> Hit:
    fault = Fault(kind=kind, after="record", count=1, pick=0.5)
    return Hit(fault, kind, at_s=at_s, detected_s=detected_s, recovered_s=recovered_s)


@pytest.mark.parametrize(
    ("hits", "num_late"),
    [
        ([hit("kill_rank", 100, detected_s=109)], 0),
        ([hit("kill_rank", 100, detected_s=111)], 1),
        ([hit("stop_rank", 100, detected_s=115), hit("stop_rank", 200, detected_s=217)], 1),
        ([hit("kill_encoder", 0, detected_s=11), hit("kill_node", 0, detected_s=21)], 2),
        ([hit("drain_node", 0, detected_s=99)], 0),
        # Storage was gone from 105 to 165, and refused once more meanwhile.
        ([hit("kill_rank", 100, detected_s=169), hit("gone_a_minute", 105, recovered_s=165)], 0),
        ([hit("kill_rank", 100, detected_s=176), hit("gone_a_minute", 105, recovered_s=165)], 1),
        (
            [
                hit("kill_rank", 100, detected_s=176),
                hit("gone_a_minute", 105, recovered_s=165),
                hit("refuse", 150, recovered_s=160),
            ],
            1,
        ),
        ([hit("kill_rank", 100, detected_s=111), hit("refuse", 0, recovered_s=90)], 1),
        ([hit("kill_rank", 100, detected_s=111), hit("refuse", 108)], 0),
    ],
)
def test_what_is_noticed_later_than_it_may_be_is_said(hits: list[Hit], num_late: int) -> None:
    assert len(late(Outcome(40, hits, 300.0, 0))) == num_late
