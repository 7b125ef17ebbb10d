"""Where rows stand, in columns: what was told comes back, a snapshot stays as it was, and a row takes few bytes."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.manifest.index import RowIndex, index_of
from pipeline.outcomes import Delivery, Outcomes
from tests.clips import make_clip

COUNT = 7
KINDS = st.sampled_from([{"mp4", "jpg"}, {"mp4", "wav", "jpg"}]).map(frozenset)
DELIVERIES = st.builds(
    Delivery,
    attempt=st.text("0123456789abcdef", min_size=8, max_size=8),
    kinds=KINDS,
    num_attempts=st.integers(1, 9),
    seconds=st.dictionaries(st.sampled_from(["render", "decode", "upload"]), st.sampled_from([0.0, 0.1, 2.5, 7200.25])),
)


def index(count: int = COUNT) -> RowIndex:
    return index_of([make_clip(f"c{row}", row=row) for row in range(count)], ["0" * 16] * count)


@given(st.dictionaries(st.integers(0, COUNT - 1), st.one_of(DELIVERIES, st.text())))
def test_what_was_told_comes_back(told: dict[int, Delivery | str]) -> None:
    outcomes = Outcomes(index())
    for position, outcome in told.items():
        if isinstance(outcome, Delivery):
            outcomes.succeed(position, outcome)
        else:
            outcomes.fail(position, outcome)
    done = {position: each for position, each in told.items() if isinstance(each, Delivery)}
    for at in (range(COUNT), range(2, 5)):
        part = slice(at.start, at.stop)

        def of(name: str, here: range = at) -> list[Any]:
            return [getattr(done[position], name) if position in done else None for position in here]

        states = ["SUCCEEDED" if n in done else "FAILED" if n in told else "PENDING" for n in at]
        assert outcomes.states(part).to_pylist() == states
        assert [text or None for text in outcomes.attempts(part)] == of("attempt")
        assert outcomes.num_attempts(part).to_pylist() == of("num_attempts")
        assert outcomes.has("wav", part).tolist() == ["wav" in (kinds or ()) for kinds in of("kinds")]
        assert [each if each is None else dict(each) for each in outcomes.seconds(part).to_pylist()] == of("seconds")
        assert outcomes.errors(at).to_pylist() == [told[n] if n in told and n not in done else None for n in at]
    assert outcomes.failures() == {f"c{n}": told[n] for n in sorted(told) if n not in done}
    assert sum(outcomes.counts().values()) == COUNT


def test_a_snapshot_stays_as_it_was() -> None:
    outcomes = Outcomes(index())
    outcomes.fail(1, "no")
    then = outcomes.snapshot(["c0", "c1", "c2"])
    outcomes.succeed(0, Delivery(attempt="0" * 8, kinds=frozenset(), num_attempts=1, seconds={"render": 1.0}))
    outcomes.fail(2, "no")
    assert then.states(slice(0, 4)).to_pylist() == ["RUNNING", "FAILED", "RUNNING", "PENDING"]
    assert then.failures() == {"c1": "no"}
    assert then.seconds(slice(0, 1)).to_pylist() == [None]
    assert outcomes.states(slice(0, 4)).to_pylist() == ["SUCCEEDED", "FAILED", "FAILED", "PENDING"]


def test_a_row_takes_few_bytes() -> None:
    outcomes = Outcomes(index(1000))
    seconds = dict.fromkeys(("condition", "render", "decode", "encode", "upload"), 1.0)
    for position in range(1000):
        outcomes.succeed(
            position, Delivery(attempt=f"{position:08x}", kinds=frozenset({"mp4"}), num_attempts=1, seconds=seconds)
        )
    assert outcomes.size_bytes <= 40 * 1000
