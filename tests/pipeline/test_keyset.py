"""Sets of keys that hold no keys: the same answers as a set's, in sixteen bytes a key."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from pipeline.keyset import DIGEST_BYTES, KeySet

KEYS = st.lists(st.text(max_size=3), max_size=30)


@given(first=KEYS, second=KEYS, asked=KEYS)
def test_it_answers_as_a_set_does(first: list[str], second: list[str], asked: list[str]) -> None:
    found = KeySet(first)
    assert found == set(first)
    found.add(second)
    known = {*first, *second}
    assert (found == known, len(found)) == (True, len(known))
    assert found.contains(asked).tolist() == [key in known for key in asked]
    assert found.num_common(KeySet(asked)) == len(known & set(asked))
    assert all((key in found) == (key in known) for key in asked)


def test_one_key_more_is_another_set() -> None:
    assert KeySet(["a", "b"]) != KeySet(["a"])
    assert KeySet(["a", "b"]) != {"a", "c"}
    assert KeySet() == set()


def test_what_is_held_does_not_grow_with_the_keys() -> None:
    keys = KeySet(f"records/{number:0200d}.json" for number in range(10_000))
    assert len(keys) == 10_000
    assert sum(sys.getsizeof(each) for each in vars(keys).values()) < 10_000 * DIGEST_BYTES + 1000
