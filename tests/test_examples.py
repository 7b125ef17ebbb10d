"""The example is a manifest that passes, and the Parquet file is the JSON Lines file it is said to be made from."""

from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from examples.make_demo import HERE, demo_table, draw_picture
from jobs.compose import compose_values
from jobs.settings import run_settings
from jobs.words import read_words
from pipeline.manifest.reading import read_manifest
from pipeline.manifest.rows import Rules

DEMO = HERE / "demo.parquet"


def test_the_table_is_made_from_the_lines() -> None:
    assert pq.read_table(DEMO).equals(demo_table())


def test_the_picture_is_the_one_that_is_drawn(tmp_path: Path) -> None:
    draw_picture(tmp_path / "again.png")
    again, committed = Image.open(tmp_path / "again.png"), Image.open(HERE / "blue_circle.png")
    assert (again.size, again.tobytes()) == (committed.size, committed.tobytes())


def test_the_demo_shows_what_a_manifest_can_say() -> None:
    settings = run_settings(compose_values("render", read_words([f"manifest={DEMO}", "output=nowhere"])))
    rules = Rules(model=settings.model, count_tokens=lambda text: len(text.split()))
    manifest = read_manifest(settings.manifest, storage=settings.storage, rules=rules)
    clips = manifest.clips
    assert 8 <= len(clips) <= 12
    assert sum(clip.image is not None for clip in clips) == 1
    assert sum(not clip.audio for clip in clips) == 1
    assert {"1:1", "16:9", "9:16"} == {clip.ratio for clip in clips}
    assert len({clip.duration_s for clip in clips}) == 2
