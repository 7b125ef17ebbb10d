"""The order of rendering and what is left out of it."""

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger import failed_key, record_key
from pipeline.manifest.index import RowIndex, index_of
from pipeline.plan import clip_cost, make_plan
from pipeline.types import Clip
from tests.clips import make_clip

SIZES = (("64P", "1:1"), ("64P", "16:9"), ("64P", "9:16"), ("128P", "1:1"), ("128P", "16:9"))


def hashed(clip_id: str) -> str:
    return hashlib.sha256(clip_id.encode()).hexdigest()[:16]


def index(clips: Sequence[Clip]) -> RowIndex:
    return index_of(clips, [hashed(clip.clip_id) for clip in clips])


def ids(clips: Sequence[Clip], positions: np.ndarray) -> list[str]:
    return [clips[position].clip_id for position in positions]


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
    plan = make_plan(index(clips), ())
    assert ids(clips, plan.to_render) == [
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
    ratios = [clips[position].ratio for position in make_plan(index(clips), ()).to_render]
    assert sum(one != other for one, other in itertools.pairwise(ratios)) == 1


def test_what_is_recorded_with_the_same_hash_is_done() -> None:
    clips = [make_clip(each, row=row) for row, each in enumerate("abc")]
    done = {record_key("a", hashed("a")), record_key("b", hashed("another")), record_key("z", hashed("z"))}
    plan = make_plan(index(clips), done)
    assert ids(clips, plan.done) == ["a"]
    assert ids(clips, plan.to_render) == ["b", "c"]
    assert len(plan.given_up) == 0


def test_what_failed_before_is_tried_again_unless_told_otherwise() -> None:
    clips = [make_clip(each, row=row) for row, each in enumerate("abc")]
    done = {record_key("a", hashed("a"))}
    failed = {failed_key("a", hashed("a")), failed_key("b", hashed("b")), failed_key("c", hashed("old"))}
    assert ids(clips, make_plan(index(clips), done, failed=failed).to_render) == ["b", "c"]
    plan = make_plan(index(clips), done, failed=failed, retry_failed=False)
    assert [ids(clips, each) for each in (plan.to_render, plan.given_up, plan.done)] == [["c"], ["b"], ["a"]]


@given(tables(), st.data())
def test_every_clip_is_in_exactly_one_place_and_the_sum_is_of_what_is_left(
    clips: list[Clip], data: st.DataObject
) -> None:
    keys = [record_key(clip.clip_id, hashed(clip.clip_id)) for clip in clips]
    done = data.draw(st.sets(st.sampled_from(keys))) if keys else set()
    failed = (
        {key.replace("records/", "failed/") for key in data.draw(st.sets(st.sampled_from(keys)))} if keys else set()
    )
    plan = make_plan(index(clips), done, failed=failed, retry_failed=False)
    assert sorted([*plan.to_render, *plan.done, *plan.given_up]) == list(range(len(clips)))
    assert plan.num_tokens == sum(clip_cost(clips[position]) for position in plan.to_render)


@given(tables())
def test_a_costlier_shape_never_comes_later_within_a_priority(clips: list[Clip]) -> None:
    order = [clips[position] for position in make_plan(index(clips), ()).to_render]
    for one, other in itertools.pairwise(order):
        assert (one.priority, one.shape.num_tokens) >= (other.priority, other.shape.num_tokens)


@given(tables())
def test_the_order_is_that_of_the_rule(clips: list[Clip]) -> None:
    """Written down a second time, clip by clip."""

    def rule(clip: Clip) -> tuple[object, ...]:
        shape = clip.shape
        bucket = (shape.num_frames, shape.height, shape.width, shape.audio_latent)
        return (-clip.priority, -shape.num_tokens, bucket, -clip.steps, clip.row)

    assert ids(clips, make_plan(index(clips), ()).to_render) == [clip.clip_id for clip in sorted(clips, key=rule)]


def test_more_rows_than_are_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.plan.CHUNK", 3)
    clips = [make_clip(f"c{row}", row=row) for row in range(10)]
    done = {record_key(clip.clip_id, hashed(clip.clip_id)) for clip in clips[1::2]}
    assert ids(clips, make_plan(index(clips), done).done) == ["c1", "c3", "c5", "c7", "c9"]
