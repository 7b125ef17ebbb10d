"""What the Transformers are trained on: the right mixture, never the held-out eighth, all from seed and step."""

import dataclasses
import random
from typing import Any

import pytest
import torch

from model.foal import batches
from model.foal.batches import ANY_PAINT, EDGE_WEIGHT, IMAGE_GIVEN, SUBJECT_UNNAMED, TEXT_DROPPED, Clips, Noise, _weight
from model.foal.scenes import Places, Scene, is_held_out, random_scene
from tests.model.foal.fields import any_codec, any_text

COUNT = 240


def clips(*, seed: int = 1, size: int = 1, large: bool = False) -> Clips:
    codec, text = any_codec(), any_text()
    return Clips(seed=seed, size=size, codec=codec, text=text, device="cpu", large=large)


Drawn = tuple[list[tuple[Scene, Places]], list[batches.Batch], Clips, list[Scene]]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """Scenes as they are asked for, the batches made of them, and the scenes as these show them."""
    scenes: list[tuple[Scene, Places]] = []
    shown: list[Scene] = []

    def noted(rng: random.Random, *, places: Places, **asked: Any) -> Scene:
        scenes.append((random_scene(rng, places=places, **asked), places))
        return scenes[-1][0]

    def unseen(self: Clips, scenes: list[Scene], *, scale: int) -> torch.Tensor:  # drawing takes its time
        shown.extend(scenes)
        return torch.zeros(len(scenes))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "random_scene", noted)
        patch.setattr(Clips, "_video", unseen)
        patch.setattr(batches, "_weight", lambda scenes, scale: torch.zeros(len(scenes)))
        source = clips()
        return scenes, [source.draw(step)[0] for step in range(COUNT)], source, shown


def test_the_held_out_eighth_is_never_shown(drawn: Drawn) -> None:
    scenes = [scene for scene, _ in drawn[0]]
    assert len(scenes) == COUNT
    assert not [s for s in scenes if is_held_out(shape=s.shape, colour=s.colour, motion=s.motion)]
    assert {scene.ratio for scene in scenes} == {"1:1", "16:9", "9:16"}
    assert {scene.duration_s for scene in scenes} == {3, 4, 5}


def test_a_shape_stands_anywhere_with_a_first_image_and_else_in_the_centre(drawn: Drawn) -> None:
    scenes, made, *_ = drawn
    for (_, places), batch in zip(scenes, made, strict=True):
        assert places == ("any" if batch.num_given else "centre")


def test_images_are_given_and_texts_dropped_as_often_as_it_says(drawn: Drawn) -> None:
    _, made, source, _ = drawn
    empty = source.empty_text()
    dropped = [batch.text.shape == empty.shape and torch.equal(batch.text, empty) for batch in made]
    given = [batch.num_given for batch in made]
    assert sum(dropped) / COUNT == pytest.approx(TEXT_DROPPED, abs=0.05)
    assert sum(given) / COUNT == pytest.approx(IMAGE_GIVEN, abs=0.07)
    assert any(one and other for one, other in zip(dropped, given, strict=True)), "one does not exclude the other"


def test_only_shapes_of_first_images_come_in_any_colour(drawn: Drawn) -> None:
    _, made, _, shown = drawn
    painted = [scene.paint is not None for scene in shown]
    given = [bool(batch.num_given) for batch in made]
    assert not [1 for is_painted, is_given in zip(painted, given, strict=True) if is_painted and not is_given]
    assert sum(painted) / sum(given) == pytest.approx(SUBJECT_UNNAMED * ANY_PAINT, abs=0.1)


def test_a_batch_follows_from_its_seed_and_step_alone() -> None:
    one, other = clips(), clips()
    other.draw(4)
    (first, noise), (second, again) = one.draw(7), other.draw(7)
    for name in ("video", "audio", "text"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert torch.equal(noise.like(first.video), again.like(first.video))
    assert not torch.equal(clips(seed=2).draw(7)[0].text, first.text)


def test_pictures_sound_and_size_belong_together() -> None:
    source = clips(size=2, large=True)
    for step in range(4):
        batch, _ = source.draw(step)
        assert batch.large is not None
        duration_s = (batch.audio.shape[1] - 1) / 12
        assert duration_s in (3, 4, 5)
        assert batch.video.shape[2] == batch.large.shape[2] == duration_s * 3 + 1
        assert [2 * side for side in batch.video.shape[-2:]] == [*batch.large.shape[-2:]]
        assert {len(batch.video), len(batch.audio), len(batch.text)} == {2}


def test_cells_that_an_edge_crosses_weigh_more() -> None:
    """A shape that stands in the centre of 8x8 cells: the corners see none of it, the inmost four nothing else."""
    scene = random_scene(random.Random(1), duration_s=3, ratio="1:1")
    still = dataclasses.replace(scene, motion="still", shape="square", radius=12.5)
    weight = _weight([still, dataclasses.replace(still, shape="circle")], scale=1)
    assert weight.shape == (2, 1, 10, 8, 8)
    assert weight.mean((1, 2, 3, 4)).tolist() == pytest.approx([1, 1])
    first = weight[0, 0, 0]
    plain, edge = float(first.min()), float(first.max())
    assert edge == pytest.approx(EDGE_WEIGHT * plain)
    sides = (first == edge).int().tolist()
    ring = [[int(max(abs(y - 3.5), abs(x - 3.5)) == 1.5) for x in range(8)] for y in range(8)]
    assert sides == ring
    assert (weight[0] == first).all(), "every frame of what stays still is like the first"


def test_short_captions_are_filled_with_their_end() -> None:
    """A prompt's own tokens come out the same beside a longer one."""
    source = clips()
    begin, end = source.text.tokenize("")
    short, long = [5, 6], [5, 6, 7, 8, 9]
    alone, beside = source._embed([short]), source._embed([short, long])
    assert torch.equal(alone[0], beside[0, :4])
    assert torch.equal(beside[0, -1], source.text.embed(torch.tensor([end, end, end]))[1])
    assert begin != end


def test_noise_is_a_stream() -> None:
    noise, again = Noise(3, device="cpu"), Noise(3, device="cpu")
    x = torch.zeros(50, 40)
    first, second = noise.like(x), noise.like(x)
    assert torch.equal(first, again.like(x))
    assert not torch.equal(first, second)
    assert float(first.std()) == pytest.approx(1, abs=0.1)
    assert 0 <= float(noise.uniform(100).min()) < float(noise.uniform(100).max()) < 1
