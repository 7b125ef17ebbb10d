"""The drawn world: shapes in their places, contacts on frames, the same scene at twice the size, what is held out."""

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Iterator
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.foal.scenes import (
    BACKGROUNDS,
    BOUNCE_PERIOD_S,
    COLOURS,
    MARGIN,
    MOTIONS,
    RATIO_SIZES,
    SHAPES,
    Places,
    Scene,
    any_paint,
    centre_path,
    draw_coverage,
    draw_frames,
    is_held_out,
    random_scene,
)

FPS = 12
SUBPIXELS = 8


def a_scene(*, ratio: str = "1:1", places: Places = "any", seed: int = 1, **changes: object) -> Scene:
    scene = random_scene(random.Random(seed), duration_s=3, ratio=ratio, places=places)
    return dataclasses.replace(scene, **changes)  # type: ignore[arg-type]


def is_inside(shape: str, dx: Tensor, dy: Tensor, r: float) -> Tensor:
    """Plain geometry, y down."""
    if shape == "circle":
        return dx**2 + dy**2 <= r**2
    if shape == "square":
        return (dx.abs() <= 0.9 * r) & (dy.abs() <= 0.9 * r)
    top, bottom = -1.1 * r, 0.85 * r  # of an equilateral triangle
    half_width = (dy - top) / math.sqrt(3)
    return (dy <= bottom) & (dx.abs() <= half_width)


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("ratio", RATIO_SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_pixel_is_covered_as_much_as_the_shape_covers_it(shape: str, ratio: str, scale: int) -> None:
    """Against counted subpixels. A distance knows no corners, so those of squares and triangles may differ."""
    scene = a_scene(shape=shape, ratio=ratio, motion="bounce")
    drawn = draw_coverage(scene, num_frames=7, fps=FPS, scale=scale)[6, ..., 0]
    height, width = drawn.shape
    assert (height, width) == tuple(scale * side for side in RATIO_SIZES[ratio])
    x, y = centre_path(scene, torch.tensor([6 / FPS]))
    steps = (torch.arange(max(height, width) * SUBPIXELS) + 0.5) / SUBPIXELS / scale
    dx, dy = steps[None, : width * SUBPIXELS] - x, steps[: height * SUBPIXELS, None] - y
    counted = functional.avg_pool2d(is_inside(shape, dx, dy, scene.radius)[None].float(), SUBPIXELS)[0]
    assert counted.max() == 1
    error = (drawn - counted).abs()
    assert error.max() < 0.4
    assert (error > 0.15).sum() <= 12
    assert drawn.sum() == pytest.approx(float(counted.sum()), rel=0.01)


@pytest.mark.parametrize("ratio", RATIO_SIZES)
def test_a_picture_of_twice_the_size_shows_the_same_scene(ratio: str) -> None:
    for seed in range(12):
        scene = a_scene(ratio=ratio, seed=seed)
        small, large = (draw_coverage(scene, num_frames=37, fps=FPS, scale=scale)[..., 0] for scale in (1, 2))
        error = (functional.avg_pool2d(large, 2) - small).abs()
        assert error.max() < 0.4  # at corners
        assert error.mean() < 0.001  # a quarter of a pixel aside would be five times as much


@pytest.mark.parametrize("ratio", RATIO_SIZES)
@pytest.mark.parametrize("places", get_args(Places))
def test_a_shape_never_leaves_the_picture(ratio: str, places: Places) -> None:
    """But for a triangle's corners, which may touch its edge."""
    for seed in range(40):
        scene = a_scene(ratio=ratio, places=places, seed=seed)
        coverage = draw_coverage(scene, num_frames=37, fps=FPS)[..., 0]
        assert coverage.amax((1, 2)).min() == 1
        for edge in (0, -1):
            assert coverage[:, edge].max() == 0
            assert coverage[:, :, edge].max() <= (0.75 if scene.shape == "triangle" else 0)


def test_the_colours_are_those_of_the_table() -> None:
    for colour in COLOURS:
        for background in BACKGROUNDS:
            scene = a_scene(colour=colour, background=background, shape="circle", motion="still")
            frame = draw_frames(scene, num_frames=1, fps=FPS)[0]
            x, y = (int(place) for place in centre_path(scene, torch.zeros(1)))
            assert frame[y, x].tolist() == pytest.approx(COLOURS[colour])
            assert frame[0, 0].tolist() == pytest.approx(BACKGROUNDS[background])


def test_a_motion_goes_where_its_name_says() -> None:
    times_s = torch.arange(37) / FPS
    for seed in range(10):
        paths = {motion: centre_path(a_scene(motion=motion, seed=seed), times_s) for motion in MOTIONS}
        assert (paths["right"][0].diff() > 0).all()
        assert (paths["left"][0].diff() < 0).all()
        for motion in ("right", "left"):
            assert paths[motion][1].unique().numel() == 1
            assert paths[motion][0].diff().sum().abs() > 30, "from one side to the other"
        assert [path.unique().numel() for path in paths["still"]] == [1, 1]
        assert paths["bounce"][0].unique().numel() == 1
        assert paths["bounce"][1].diff().abs().max() > 2


@pytest.mark.parametrize("shape", SHAPES)
def test_contacts_fall_on_frames_and_there_the_path_is_lowest(shape: str) -> None:
    scenes = [a_scene(seed=seed, motion="bounce") for seed in range(60)]
    drawn = next(scene for scene in scenes if scene.shape == shape)
    assert drawn.period_s == BOUNCE_PERIOD_S[shape]
    for duration_s in (3, 4, 5):
        scene = dataclasses.replace(drawn, duration_s=duration_s)
        assert len(scene.contact_times_s) >= 2
        frames = [time_s * FPS for time_s in scene.contact_times_s]
        assert frames == pytest.approx([round(frame) for frame in frames])
        _, y = centre_path(scene, torch.arange(duration_s * FPS) / FPS)
        lowest = (y > y.max() - 1e-3).nonzero().flatten().tolist()  # y runs down
        assert [round(frame) for frame in frames] == lowest
        assert y.max() == pytest.approx(64 - MARGIN - scene.radius)


def test_only_what_bounces_touches_the_ground() -> None:
    assert [motion for motion in MOTIONS if a_scene(motion=motion).contact_times_s] == ["bounce"]


def test_a_scene_follows_from_its_seed() -> None:
    assert a_scene(seed=4) == a_scene(seed=4)
    assert len({a_scene(seed=seed) for seed in range(50)}) == 50
    first, second = (draw_frames(a_scene(seed=4), num_frames=9, fps=FPS) for _ in range(2))
    assert torch.equal(first, second)


def test_a_place_is_the_centre_or_any() -> None:
    """A prompt does not say where a shape stands and how large it is; a first frame does."""
    count = {
        places: len({(s.radius, s.across, s.along) for s in (a_scene(places=places, seed=n) for n in range(400))})
        for places in get_args(Places)
    }
    assert count == {"centre": 1, "any": 400}
    x, y = centre_path(a_scene(places="centre", motion="still"), torch.zeros(1))
    assert (float(x), float(y)) == (32, 32)


def held_out() -> Iterator[tuple[str, str, str]]:
    for shape in SHAPES:
        for colour in COLOURS:
            for motion in MOTIONS:
                if is_held_out(shape=shape, colour=colour, motion=motion):
                    yield shape, colour, motion


def test_one_eighth_of_the_world_is_held_out() -> None:
    """Each shape with each motion once, each colour at least once: a model can learn all of them elsewhere."""
    found = list(held_out())
    assert len(found) == len(SHAPES) * len(COLOURS) * len(MOTIONS) // 8
    pairs = Counter((shape, motion) for shape, _, motion in found)
    assert pairs == dict.fromkeys(((shape, motion) for shape in SHAPES for motion in MOTIONS), 1)
    assert {colour for _, colour, _ in found} == set(COLOURS)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_scene_is_drawn_from_the_part_that_was_asked_for(wanted: bool) -> None:
    rng, kept_back = random.Random(1), set(held_out())
    scenes = [random_scene(rng, duration_s=3, ratio="1:1", held_out=wanted) for _ in range(500)]
    seen = {(scene.shape, scene.colour, scene.motion) for scene in scenes}
    assert (seen == kept_back) if wanted else not (seen & kept_back)


def test_any_paint_stands_out_and_makes_nothing_held_out() -> None:
    """A red circle to the right is held out, so one that is nearly red is, too."""
    scene = a_scene(shape="circle", motion="right", background="gray")
    assert is_held_out(shape="circle", colour="red", motion="right")
    rng = random.Random(1)
    paints = [any_paint(rng, scene) for _ in range(400)]
    nearest = Counter(min(COLOURS, key=lambda name: math.dist(COLOURS[name], paint)) for paint in paints)
    assert {*nearest} == {*COLOURS} - {"red"}
    assert min(math.dist(BACKGROUNDS["gray"], paint) for paint in paints) > 0.4


def test_a_painted_shape_is_drawn_in_its_paint() -> None:
    plain = a_scene(motion="still", colour="blue", places="centre")
    painted = dataclasses.replace(plain, paint=(0.2, 0.9, 0.4))
    middle = RATIO_SIZES["1:1"][0] // 2
    (one,), (other,) = (draw_frames(scene, num_frames=1, fps=FPS) for scene in (plain, painted))
    assert one[middle, middle].tolist() == pytest.approx(COLOURS["blue"])
    assert other[middle, middle].tolist() == pytest.approx((0.2, 0.9, 0.4))
    assert torch.equal(one[0], other[0]), "the background stays"
