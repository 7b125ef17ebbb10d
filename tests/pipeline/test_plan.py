"""The order of rendering and what is left out of it."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger import failed_key, record_key
from pipeline.plan import clip_cost, make_plan
from pipeline.types import Clip
from tests.clips import make_clip

SIZES = (("64P", "1:1"), ("64P", "16:9"), ("64P", "9:16"), ("128P", "1:1"), ("128P", "16:9"))


def hashes_of(clips: list[Clip]) -> dict[str, str]:
    return {clip.clip_id: f"h{clip.clip_id}" for clip in clips}


def ids(clips: tuple[Clip, ...]) -> list[str]:
    return [clip.clip_id for clip in clips]


@st.composite
def tables(draw: st.DrawFn) -> list[Clip]:
    clips = []
    for row in range(draw(st.integers(0, 12))):
        resolution, ratio = draw(st.sampled_from(SIZES))
        clips.append(
            make_clip(
                f"c{row}",
                row=row,
                resolution=resolution,
                ratio=ratio,
                duration_s=draw(st.sampled_from((3, 4, 5))),
                priority=draw(st.integers(-1, 1)),
                steps=draw(st.sampled_from((4, 8))),
            )
        )
    return clips


def test_priority_first_then_the_costliest_then_the_manifests_order() -> None:
    clips = [
        make_clip("short", row=0),
        make_clip("long", row=1, duration_s=5),
        make_clip("large", row=2, resolution="128P"),
        make_clip("short again", row=3),
        make_clip("urgent", row=4, priority=1),
        make_clip("late", row=5, priority=-1, resolution="128P", duration_s=5),
        make_clip("short, many steps", row=6, steps=50),
    ]
    plan = make_plan(clips, hashes_of(clips), ())
    assert ids(plan.to_render) == [
        "urgent",
        "large",
        "long",
        "short, many steps",
        "short",
        "short again",
        "late",
    ]


def test_clips_of_one_shape_stay_together() -> None:
    """16:9 and 9:16 have equally many tokens: sorted by cost alone they would alternate."""
    clips = [make_clip(f"{n}", row=n, ratio=("16:9", "9:16")[n % 2]) for n in range(6)]
    ratios = [clip.ratio for clip in make_plan(clips, hashes_of(clips), ()).to_render]
    assert sum(one != other for one, other in itertools.pairwise(ratios)) == 1


def test_what_is_recorded_with_the_same_hash_is_done() -> None:
    clips = [make_clip(each) for each in "abc"]
    done = {record_key("a", "ha"), record_key("b", "another hash"), record_key("z", "hz")}
    plan = make_plan(clips, hashes_of(clips), done)
    assert ids(plan.done) == ["a"]
    assert sorted(ids(plan.to_render)) == ["b", "c"]
    assert plan.given_up == ()


def test_what_failed_before_is_tried_again_unless_told_otherwise() -> None:
    clips = [make_clip(each) for each in "abc"]
    done, failed = {record_key("a", "ha")}, {failed_key("a", "ha"), failed_key("b", "hb"), failed_key("c", "old")}
    assert sorted(ids(make_plan(clips, hashes_of(clips), done, failed=failed).to_render)) == ["b", "c"]
    plan = make_plan(clips, hashes_of(clips), done, failed=failed, retry_failed=False)
    assert (ids(plan.to_render), ids(plan.given_up), ids(plan.done)) == (["c"], ["b"], ["a"])


@given(tables(), st.data())
def test_every_clip_is_in_exactly_one_place_and_the_order_of_the_rows_does_not_matter(
    clips: list[Clip], data: st.DataObject
) -> None:
    hashes = hashes_of(clips)
    keys = [record_key(clip.clip_id, hashes[clip.clip_id]) for clip in clips]
    done = data.draw(st.sets(st.sampled_from(keys))) if keys else set()
    failed = (
        {key.replace("records/", "failed/") for key in data.draw(st.sets(st.sampled_from(keys)))} if keys else set()
    )
    plan = make_plan(clips, hashes, done, failed=failed, retry_failed=False)
    assert sorted(ids(plan.to_render) + ids(plan.done) + ids(plan.given_up)) == sorted(hashes)
    shuffled = data.draw(st.permutations(clips))
    assert make_plan(shuffled, hashes, done, failed=failed, retry_failed=False).to_render == plan.to_render
    assert plan.num_tokens == sum(clip_cost(clip) for clip in plan.to_render)


@given(tables())
def test_a_costlier_shape_never_comes_later_within_a_priority(clips: list[Clip]) -> None:
    order = make_plan(clips, hashes_of(clips), ()).to_render
    for one, other in itertools.pairwise(order):
        assert (one.priority, one.shape.num_tokens) >= (other.priority, other.shape.num_tokens)
