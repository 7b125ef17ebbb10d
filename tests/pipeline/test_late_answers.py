"""An answer to an order that was given up is void: its clip has another attempt by then."""

from dataclasses import dataclass, field

from pipeline.fleet import Done, Event, FinishOrder, Order
from tests.driving import drive, orders
from tests.fakes import FakeFleet, Fault, MemoryRecorder, finished, make_clips


@dataclass
class SleepyFleet(FakeFleet):
    """Its finisher is lost with the first order, and that attempt's answer comes when the second one has begun."""

    late: list[Event] = field(default_factory=list)

    def offer(self, crew_id: str, order: Order, /) -> None:
        super().offer(crew_id, order)
        if isinstance(order, FinishOrder) and len(orders(self, FinishOrder)) == 2:
            (first, _) = orders(self, FinishOrder)
            self.late.append(Done(crew_id=crew_id, result=finished(first), seconds=1.0))

    def wait(self, timeout_s: float, /) -> list[Event]:
        late, self.late = self.late, []
        return late or super().wait(timeout_s)


def test_an_attempt_that_was_given_up_is_not_recorded_however_late_it_answers() -> None:
    fleet, recorder = SleepyFleet(faults=[Fault(stage="finish", nth=0, what="lose")]), MemoryRecorder()
    drive(make_clips(1), fleet, recorder)
    given_up, counts = orders(fleet, FinishOrder)
    assert given_up.attempt != counts.attempt
    assert recorder.records["clip-0"].attempt == counts.attempt
