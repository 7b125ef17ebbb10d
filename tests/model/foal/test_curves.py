"""The picture of a training's log."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from model.foal.curves import SMOOTHING, write_curves

SVG = "{http://www.w3.org/2000/svg}"


def curves(folder: Path, rows: list[dict[str, float]]) -> list[list[tuple[float, float]]]:
    """Points of each curve."""
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_curves(folder)
    root = ElementTree.parse(folder / "curves.svg").getroot()
    assert root.tag == f"{SVG}svg"
    _, _, width, height = (float(side) for side in root.attrib["viewBox"].split())
    found = [
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        for line in root.iter(f"{SVG}polyline")
    ]
    assert all(0 <= x <= width and 0 <= y <= height for points in found for x, y in points)
    return found  # type: ignore[return-value]


def test_a_curve_a_loss_that_falls_as_the_loss_does(tmp_path: Path) -> None:
    count = 10 * SMOOTHING
    rows = [{"step": n + 1, "video": 10.0 ** -(n / count), "audio": 0.2, "cpu_s": 1.0} for n in range(count)]
    video, audio = curves(tmp_path / "base", rows)
    assert len(video) == len(audio) == 10
    assert [y for _, y in video] == sorted(y for _, y in video)  # y runs down
    assert video[-1][1] - video[0][1] > 100
    assert len({y for _, y in audio}) == 1


def test_steps_that_were_done_twice_count_once(tmp_path: Path) -> None:
    rows = [{"step": n + 1, "loss": 1 + n / 100, "cpu_s": 1.0} for n in range(3 * SMOOTHING)]
    straight = curves(tmp_path / "straight", rows)
    assert curves(tmp_path / "resumed", rows[: 2 * SMOOTHING] + rows[SMOOTHING:]) == straight


@pytest.mark.parametrize("losses", [[0.5], [0.0, 0.0], [3.0] * 60, [1e-9, 1e9]])
def test_short_flat_and_wild_logs_have_a_picture(losses: list[float], tmp_path: Path) -> None:
    rows = [{"step": n + 1, "loss": loss, "cpu_s": 0.1} for n, loss in enumerate(losses)]
    assert len(curves(tmp_path / "codec", rows)) == 1
