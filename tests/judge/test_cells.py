"""What is asked for is held out and mixed, and the cells count as the table says."""

import io
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from model.foal.judge import Verdict
from model.foal.scenes import RATIO_SIZES, SHAPES, is_held_out
from tests.judge import cells, report
from tests.judge.prompts import Asked, held_out_prompts
from tests.judge.references import BUILTIN
from tests.judge.rendering import NOTHING, NotBuilt, check_built


def right(asked: Asked) -> Verdict:
    """The verdict on a clip that is all that it was asked to be."""
    scene = asked.scene
    return Verdict(
        background=scene.background,
        colour=scene.colour,
        shape=scene.shape,
        shape_scores={shape: 1.0 if shape == scene.shape else 0.9 for shape in SHAPES},
        motion=scene.motion,
        sound=scene.sound,
        contact_times_s=tuple(scene.contact_times_s),
        onset_times_s=tuple(scene.contact_times_s) if scene.sound in ("beep", "thud") else (),
        edge_width_px=2.0,
        one_object=1.0,
    )


def all_right(count: int = 32) -> list[tuple[Asked, Verdict]]:
    return [(asked, right(asked)) for asked in held_out_prompts(count)]


def test_prompts_are_held_out_and_enough_of_them_bounce() -> None:
    asked = held_out_prompts(128)
    scenes = [each.scene for each in asked]
    assert all(is_held_out(shape=s.shape, colour=s.colour, motion=s.motion) for s in scenes)
    assert sum(s.sound in ("beep", "thud") for s in scenes) >= 40
    assert min(Counter(s.motion for s in scenes).values()) >= 16
    assert min(Counter(s.shape for s in scenes).values()) >= 30
    assert {s.ratio for s in scenes} == set(RATIO_SIZES)
    assert sum(s.duration_s == 3 for s in scenes) > 64
    assert len({each.prompt for each in asked}) > 120
    assert held_out_prompts(16) == asked[:16]
    assert held_out_prompts(16, seed=6) != asked[:16]


def test_images_are_as_large_as_a_row_may_give_them_and_prompts_leave_the_subject_open() -> None:
    for asked in held_out_prompts(16, with_image=True):
        row = asked.row(resolution="64P")
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            assert min(image.size) >= 300
        assert not {asked.scene.colour, asked.scene.shape} & set(asked.prompt.split())
        assert "ratio" not in row


def test_clips_that_are_right_meet_every_cell() -> None:
    judged = all_right()
    met = [cell.met for cell in [*cells.text_cells(judged, cells.BASE), *cells.image_cells(judged)]]
    assert False not in met
    assert met.count(True) == 4 + 3 + 3 + 3
    assert all(not pairs for pairs in cells.mistakes(judged).values())


def test_clips_that_were_never_delivered_meet_none() -> None:
    judged = [(asked, NOTHING) for asked, _ in all_right()]
    found = cells.text_cells(judged, cells.BASE)
    assert {cell.met for cell in found} == {None, False}
    assert {cell.value for cell in found if "AUC" in cell.name} == {0}


def test_a_share_is_counted_over_all_clips() -> None:
    judged = all_right(32)
    asked, verdict = judged[0]
    judged[0] = (asked, replace(verdict, colour="red" if asked.scene.colour != "red" else "blue"))
    colour = cells.accuracy(judged, "colour", least=95)
    assert (colour.value, colour.note, colour.met) == (100 * 31 / 32, "31 of 32", True)
    assert sum(cells.mistakes(judged)["colour"].values()) == 1
    judged[1] = (judged[1][0], NOTHING)
    assert cells.accuracy(judged, "colour", least=95).met is False


def test_late_sounds_miss_the_cells_of_contacts() -> None:
    late = [
        (asked, replace(verdict, onset_times_s=tuple(t + 0.2 for t in verdict.onset_times_s)))
        for asked, verdict in all_right()
    ]
    found = {cell.name: cell.met for cell in cells.contact_cells(late, cells.BASE)}
    assert found["contact to sound within 120 ms"] is False
    assert found["contact to sound, median"] is False


def test_super_resolution_may_lose_one_clip_and_no_more() -> None:
    base = all_right(48)
    worse = [*base]
    for n, wanted in ((0, True), (1, False)):
        worse[n] = (worse[n][0], replace(worse[n][1], background=None))
        found = {cell.name: cell.met for cell in cells.sharp_cells(worse, base, sharper=1.6)}
        assert found.pop("background") is wanted
        assert set(found.values()) == {True}
    assert cells.sharp_cells(base, base, sharper=1.4)[0].met is False


@pytest.mark.parametrize(("ratio", "met"), [(1.0, True), (1.31, False), (0.6, False), (math.nan, False)])
def test_edges_are_held_to_the_round_trip_from_both_sides(ratio: float, met: bool) -> None:
    assert cells.edge_cell(ratio).met is met


def test_a_distilled_model_must_be_one() -> None:
    judged = all_right()
    met = {cell.name: cell.met for cell in cells.distilled_cells(judged, steps=12, guided=True)}
    assert [name for name, each in met.items() if each is False] == ["steps", "forwards a step (2: guided)"]


def test_what_is_not_built_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotBuilt, match="model=no_such"):
        check_built("no_such", "64P", weights=BUILTIN)
    with pytest.raises(NotBuilt, match="1080P"):
        check_built("foal", "1080P", weights=BUILTIN)
    with pytest.raises(NotBuilt, match="lack base"):
        check_built("foal", "64P", weights=tmp_path)


def test_a_report_names_what_was_missed(tmp_path: Path) -> None:
    judged = [(asked, NOTHING) for asked, _ in all_right(8)]
    section = report.Section(
        title="Base", cells=cells.text_cells(judged, cells.BASE), mistakes=cells.mistakes(judged), words="32 steps."
    )
    found = report.Report(
        date="2026-01-01",
        command="make judge",
        seed=5,
        cpu="one",
        versions={"torch": "2"},
        weights_digest="ab",
        sections=[section],
    )
    report.write(found, tmp_path / "deep" / "foal")
    text = (tmp_path / "deep" / "foal.md").read_text()
    assert "| colour | at least 95 % | 0.0 % (0 of 8) | **missed** |" in text
    assert "* motion: bounce -> none" in text
    values = json.loads((tmp_path / "deep" / "foal.json").read_text())["sections"]["Base"]
    assert [each["value"] for each in values if each["name"] == "contact to sound, median"] == [None]
    assert section.missed
