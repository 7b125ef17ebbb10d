"""When a clip counts as hung, by the clock and by what clips took before."""

import dataclasses

import pytest

from pipeline.crews.deadlines import ENOUGH, Attention, StepTimes, overdue, step_tokens
from pipeline.settings import ClusterSettings
from tests.clips import make_clip

SETTINGS = ClusterSettings(step_slack=10, step_least_s=2, step_timeout_s=100, clip_timeout_s=1000)
CLIP = make_clip(steps=8)
TWICE = dataclasses.replace(
    CLIP,
    shape=dataclasses.replace(
        CLIP.shape,
        audio_latent=(2 * CLIP.shape.audio_latent[0], CLIP.shape.audio_latent[1]),
        video_latent=(CLIP.shape.video_latent[0], 2 * CLIP.shape.video_latent[1], *CLIP.shape.video_latent[2:]),
    ),
)


def measured(*seconds: float) -> StepTimes:
    times = StepTimes(SETTINGS)
    for each in seconds:
        times.measured(CLIP, steps=range(8), seconds=each)
    return times


@pytest.mark.parametrize(
    ("seconds", "limit_s"),
    [
        ((), 100),
        ((8.0,) * (ENOUGH - 1), 100),  # too little to go by
        ((8.0,) * ENOUGH, 10),  # ten times a second
        ((8.0, 8.0, 8.0, 800.0), 10),  # one slow clip is no measure
        ((0.08,) * ENOUGH, 2),  # the least
        ((800.0,) * ENOUGH, 100),  # the most
    ],
)
def test_a_step_may_take_so_many_times_what_steps_took(seconds: tuple[float, ...], limit_s: float) -> None:
    assert measured(*seconds).limit_s(CLIP, step=3) == pytest.approx(limit_s)


def test_a_larger_clip_may_take_longer() -> None:
    assert step_tokens(TWICE, step=0) == 2 * step_tokens(CLIP, step=0)
    assert measured(8, 8, 8).limit_s(TWICE, step=0) == pytest.approx(20)


def test_steps_of_the_second_stage_are_measured_by_their_own_size() -> None:
    _, frames, height, width = CLIP.shape.video_latent
    enlarged = dataclasses.replace(
        CLIP, shape=dataclasses.replace(CLIP.shape, first_latent=(CLIP.shape.video_latent[0], frames, 2, 2))
    )
    assert height * width > 4
    assert step_tokens(enlarged, step=7) < step_tokens(enlarged, step=8) == step_tokens(CLIP, step=0)
    times = StepTimes(SETTINGS)
    for _ in range(ENOUGH):
        times.measured(enlarged, steps=range(13), seconds=13)
    assert times.limit_s(enlarged, step=0) < times.limit_s(enlarged, step=8)


def test_a_group_is_overdue_by_its_step_or_by_its_clip() -> None:
    def said(*, order_s: float, step_s: float, limit_s: float = 100) -> str:
        return overdue(order_s=order_s, step_s=step_s, limit_s=limit_s, at="step 3 of 8", settings=SETTINGS) or ""

    assert said(order_s=999, step_s=99) == ""
    assert "no step for 101 s after step 3 of 8 (cluster.step_timeout_s is 100)" in said(order_s=500, step_s=101)
    assert "9.5 s is what cluster.step_slack and step_least_s allow" in said(order_s=50, step_s=10, limit_s=9.5)
    assert "not done after 1001 s, at step 3 of 8 (cluster.clip_timeout_s is 1000)" in said(order_s=1001, step_s=1)


def test_time_in_which_nobody_looked_does_not_count() -> None:
    clock = Attention()
    clock.looked(0.2, at_most=2)
    clock.looked(3600, at_most=2)  # the machine slept
    assert clock.now == pytest.approx(2.2)
