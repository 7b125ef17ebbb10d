"""What is submitted twice on a day: once, unless something is left or has changed."""

import pytest

from pipeline.again import Asked, Known, State, is_same, mark_of, name_or_known
from pipeline.errors import LeaseHeld

SAME, OTHER, UNSEEN = mark_of("words", "table"), mark_of("words", "other table"), mark_of("words", None)


def jobs(*said: tuple[State, str | None]) -> dict[str, Known]:
    """Of one day, the oldest first."""
    names = ["run", "run-2", "run-3"][: len(said)]
    return {
        name: Known(name=name, mark=mark, status=state.upper(), state=state)
        for name, (state, mark) in zip(names, said, strict=True)
    }


def found(known: dict[str, Known], *, left: int | None = 0) -> str:
    """The name that is free, or that of the job which is there, with a mark."""
    what = name_or_known(Asked(name="run", mark=SAME, left=left), known.get)
    return what if isinstance(what, str) else f"{what.name} is there"


@pytest.mark.parametrize(
    ("known", "left", "expected"),
    [
        (jobs(), 3, "run"),
        (jobs(("at work", SAME)), 3, "run is there"),
        (jobs(("succeeded", SAME)), 0, "run is there"),
        (jobs(("succeeded", SAME)), None, "run is there"),  # nobody has looked
        (jobs(("succeeded", SAME)), 1, "run-2"),  # somebody removed a record; a clip failed and the job ended well
        (jobs(("succeeded", OTHER)), 0, "run-2"),
        (jobs(("succeeded", UNSEEN)), 0, "run is there"),
        (jobs(("succeeded", mark_of("other words", "table"))), 0, "run-2"),
        (jobs(("succeeded", None)), 0, "run-2"),  # a job from before there were marks
        (jobs(("failed", SAME)), 0, "run-2"),
        (jobs(("failed", SAME), ("at work", SAME)), 3, "run-2 is there"),
        (jobs(("failed", SAME), ("failed", SAME)), 3, "run-3"),
        (jobs(("succeeded", SAME), ("succeeded", OTHER)), 0, "run-3"),  # back to what it was: results name other clips
    ],
)
def test_the_same_twice_is_once(known: dict[str, Known], left: int | None, expected: str) -> None:
    assert found(known, left=left) == expected


@pytest.mark.parametrize("known", [jobs(("at work", OTHER)), jobs(("succeeded", SAME), ("at work", OTHER))])
def test_what_has_changed_does_not_run_beside_what_is_at_work(known: dict[str, Known]) -> None:
    with pytest.raises(LeaseHeld, match=rf"^job {[*known][-1]} is at work .AT WORK. with another table or other set"):
        found(known, left=5)


@pytest.mark.parametrize(
    ("mark", "other", "same"),
    [(SAME, SAME, True), (UNSEEN, SAME, True), (SAME, UNSEEN, True), (SAME, OTHER, False), (SAME, None, False)],
)
def test_a_table_that_nobody_has_looked_at_may_be_any(mark: str, other: str | None, same: bool) -> None:
    assert is_same(mark, other) is same
