"""Groups of two stages: as many of each as the work asks for."""

from dataclasses import replace

import pytest

from model.placing import RESIDENT, Placing
from model.shapes import clip_shape
from pipeline.errors import ConfigError
from pipeline.settings import ParallelSettings
from pipeline.shares import check_room, enlarging_share, shared_out
from tests.clips import make_clip
from tests.configured import load_model

APART = Placing(stages="apart")


@pytest.mark.parametrize(
    ("total", "share", "asked", "groups"),
    [
        (8, 0.0, (None, None), {"render": 8}),
        (8, 0.0, (3, 2), {"render": 3}),
        (8, 0.5, (None, None), {"render": 4, "enlarge": 4}),
        (8, 0.9, (None, None), {"render": 1, "enlarge": 7}),
        (8, 0.01, (None, None), {"render": 7, "enlarge": 1}),
        (3, 0.5, (None, None), {"render": 2, "enlarge": 1}),
        (2, 0.99, (None, None), {"render": 1, "enlarge": 1}),
        (1, 0.5, (None, None), {"render": 1, "enlarge": 1}),
        (0, 0.5, (None, None), {"render": 1, "enlarge": 1}),
        (8, 0.5, (1, None), {"render": 1, "enlarge": 7}),
        (8, 0.5, (9, None), {"render": 9, "enlarge": 1}),
        (8, 0.5, (None, 6), {"render": 2, "enlarge": 6}),
        (8, 0.5, (None, 8), {"render": 1, "enlarge": 8}),
        (8, 0.5, (2, 3), {"render": 2, "enlarge": 3}),
    ],
)
def test_groups_are_shared_out(
    total: int, share: float, asked: tuple[int | None, int | None], groups: dict[str, int]
) -> None:
    parallel = ParallelSettings(groups=asked[0], enlarging_groups=asked[1])
    assert shared_out(total, parallel, enlarging=share) == groups


def test_a_share_is_that_of_the_clips_to_render() -> None:
    model = load_model("magihuman_1080p")
    large, small = (
        make_clip(shape=clip_shape(model, resolution=resolution, ratio="16:9", duration_s=5))
        for resolution in ("1080P", "256P")
    )
    assert enlarging_share(model, [large], placing=RESIDENT) == 0
    assert enlarging_share(model, [small], placing=APART) == 0
    alone = enlarging_share(model, [large], placing=APART)
    assert 0.9 < alone < 1
    assert enlarging_share(model, [large, *[small] * 50], placing=APART) < alone
    assert enlarging_share(model, [replace(large, steps=80)], placing=APART) < alone


def test_more_groups_than_there_is_room_for_are_refused_where_two_kinds_share_it() -> None:
    check_room({"render": 9}, 2)  # those without a place are not needed
    check_room({"render": 1, "enlarge": 1}, 2)
    with pytest.raises(ConfigError, match=r"parallel.groups is 2 and parallel.enlarging_groups 1, expected at most 2"):
        check_room({"render": 2, "enlarge": 1}, 2)
