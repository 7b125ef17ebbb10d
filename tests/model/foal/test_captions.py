"""Captions: words that the text encoder knows, many wordings, and nothing about the subject where it is not named."""

import random
import re

import pytest

from model.foal.captions import BACKGROUND_WORDS, COLOUR_WORDS, SHAPE_WORDS, caption, vocabulary
from model.foal.scenes import COLOURS, MOTIONS, SHAPES, SOUNDS, Scene, random_scene
from model.text import UNKNOWN, FoalTextEncoder

COMMON = set("shape bright deep dark light pure plain".split())  # parts of names that say nothing by themselves
HEARD = {  # how words for each sound begin
    "silence": (),
    "hum": ("hum", "drone", "buzz"),
    "tone": ("high", "shrill"),
    "beep": ("beep", "bleep"),
    "thud": ("thud", "thump"),
}


def drawn(count: int, *, name_subject: bool) -> list[tuple[Scene, str]]:
    rng = random.Random(5)
    scenes = [random_scene(rng, duration_s=3, ratio="1:1") for _ in range(count)]
    return [(scene, caption(scene, rng, name_subject=name_subject)) for scene in scenes]


def words_of(*phrases: str) -> set[str]:
    return {word for phrase in phrases for word in re.findall("[a-z]+", phrase)} - COMMON


@pytest.mark.parametrize("name_subject", [True, False])
def test_every_caption_is_within_the_vocabulary(name_subject: bool) -> None:
    encoder = FoalTextEncoder(vocabulary(), channels=96)
    for _, text in drawn(3000, name_subject=name_subject):
        assert encoder.words[UNKNOWN] not in encoder.tokenize(text), text


def test_two_thirds_of_the_wordings_of_a_scene_are_distinct() -> None:
    rng = random.Random(6)
    for motion in MOTIONS:
        scene = next(scene for scene, _ in drawn(100, name_subject=True) if scene.motion == motion)
        wordings = {caption(scene, rng) for _ in range(5000)}
        assert len(wordings) > 5000 * 2 / 3, motion


def test_a_caption_names_its_own_scene_and_no_other() -> None:
    for scene, text in drawn(2000, name_subject=True):
        words = words_of(text)
        for own, table in (
            (scene.colour, COLOUR_WORDS),
            (scene.shape, SHAPE_WORDS),
            (scene.background, BACKGROUND_WORDS),
        ):
            assert [name for name, phrases in table.items() if words & words_of(*phrases)] == [own], text


@pytest.mark.parametrize("name_subject", [True, False])
def test_a_caption_says_what_is_heard(name_subject: bool) -> None:
    assert [*HEARD] == [*SOUNDS]
    for scene, text in drawn(2000, name_subject=name_subject):
        heard = [sound for sound, begins in HEARD.items() if any(word.startswith(begins) for word in words_of(text))]
        assert heard == [scene.sound] * (scene.sound != "silence"), text


def test_an_unnamed_subject_has_neither_colour_nor_shape() -> None:
    names = words_of(
        *(phrase for table in (COLOUR_WORDS, SHAPE_WORDS) for phrases in table.values() for phrase in phrases)
    )
    assert {*COLOURS, *SHAPES, "ball", "turquoise", "round"} <= names
    for _, text in drawn(2000, name_subject=False):
        assert not words_of(text) & names, text
