"""Which cards are sought and held, in what order and for how long; guards here are plain values, without Ray."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.crews.deadlines import Attention
from pipeline.crews.guards import AGAIN_S, SEEK_S, Guards, State
from pipeline.crews.nodes import Nodes, held_back
from pipeline.fleet import Gpu
from pipeline.room import Crews, all_fit

CARDS = tuple(Gpu(node="a", number=str(number)) for number in range(4))


@dataclass(eq=False)
class Hands:
    """A guard that answers what it is told to."""

    gpu: Gpu
    becomes: State = "holds"
    asked: Any = field(default_factory=object)
    actors: list[Any] = field(default_factory=list)
    state: State = "seeks"

    def collect(self) -> None:
        self.state, self.asked = self.becomes, object()

    def end(self) -> None:
        self.state, self.asked = "gone", None


class Table:
    def __init__(self) -> None:
        self.clock, self.made = Attention(), list[Hands]()
        self.guards = Guards(self.clock, guard=self._guard)

    def _guard(self, gpu: Gpu) -> Hands:
        self.made.append(Hands(gpu))
        return self.made[-1]

    def answer(self, becomes: State = "holds") -> None:
        """Of the guard that was made last."""
        self.made[-1].becomes = becomes
        self.guards.collect(self.made[-1].asked)

    def passes(self, seconds: float) -> None:
        self.clock.looked(seconds, at_most=seconds)

    def sought(self) -> list[Gpu]:
        return [each.gpu for each in self.made]


@pytest.fixture
def table() -> Table:
    return Table()


def test_one_seeks_after_the_other(table: Table) -> None:
    assert table.guards.seek()
    assert table.guards.hold(frozenset(CARDS[:2]))
    for card in CARDS[:2]:
        assert not table.guards.seek()
        assert table.sought()[-1] == card
        table.answer()
    assert table.guards.seek()
    assert not table.guards.hold(frozenset(CARDS[:1])), "nothing new"
    assert [each.state for each in table.made] == ["holds", "gone"]


def test_what_is_somebody_elses_delays_nobody_for_ever_and_is_sought_again(table: Table) -> None:
    table.guards.hold(frozenset(CARDS[:1]))
    for _ in range(2):
        assert not table.guards.seek()
        table.passes(SEEK_S - 1)
        assert not table.guards.seek()
        table.passes(2)
        assert table.guards.seek(), "it is given up, and crews may start"
        assert table.made[-1].state == "gone"
        assert table.guards.refs() == []
        table.passes(AGAIN_S - 1)
        table.guards.hold(frozenset(CARDS[:1]))  # as each look at the nodes does
        assert table.guards.seek(), "not yet"
        table.passes(2)
    assert table.sought() == list(CARDS[:1]) * 2
    assert not table.guards.seek()
    table.answer()
    assert table.guards.seek()


def test_a_card_that_is_wanted_anew_is_sought_at_once(table: Table) -> None:
    table.guards.hold(frozenset(CARDS[:1]))
    table.guards.seek()
    table.passes(SEEK_S + 1)
    assert table.guards.seek()
    table.guards.hold(frozenset())
    table.guards.hold(frozenset(CARDS[:1]))
    assert not table.guards.seek()


def test_a_guard_that_dies_is_followed_by_another_unless_it_never_had_the_card(table: Table) -> None:
    table.guards.hold(frozenset(CARDS[:1]))
    table.guards.seek()
    table.answer()
    table.answer("gone")
    assert not table.guards.seek(), "it is sought again"
    table.answer("gone")
    assert table.guards.seek(), "its node is gone, most likely"
    table.passes(AGAIN_S + 1)
    assert not table.guards.seek()


@pytest.mark.parametrize(("encoder", "held"), [(0, 3), (1, 2), (2, 1), (3, 0)])
def test_cards_are_held_back_as_long_as_groups_and_all_others_fit_without(encoder: int, held: int) -> None:
    nodes = Nodes(alive={"a": {"CPU": 9.0, "GPU": 4.0}})
    needed = [*([Crews(kind="encoder", cards=encoder)] if encoder else []), Crews(kind="group", cards=1)]
    found = held_back(nodes, CARDS, fits=lambda left: all_fit(needed, left))
    assert found == frozenset(CARDS[:held])


def test_nothing_at_all_fits_everywhere() -> None:
    assert all_fit([], [])
    assert not all_fit([Crews(kind="encoder", cards=1)], [{"CPU": 4.0}])
    two = [Crews(kind="group", actors=2, cards=1), Crews(kind="other", actors=2, cards=1)]
    assert all_fit(two, [{"CPU": 2.0, "GPU": 2.0}] * 2)
    assert not all_fit(two, [{"CPU": 9.0, "GPU": 3.0}])
