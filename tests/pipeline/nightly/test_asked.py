"""What people ask of one manifest's run, through its output, is no reason to stop for the others."""

from pathlib import Path

from tests.pipeline.nightly.nights import studio

EVENING = "2026-11-21T21:00"  # 22:00 in Berlin


def test_a_paused_manifest_is_skipped_and_others_go_on(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING)
    place.renderer.paused = {"a"}
    place.drop("a", [60])
    place.drop("b", [60])
    report = place.run()
    assert report.exit_code == 3
    assert report.standings == {
        "a.parquet": ("left", "a was paused by ann: nothing was started"),
        "b.parquet": ("done", "1 clip"),
    }


def test_a_canceled_manifest_is_left_for_the_next_night_and_others_go_on(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING)
    place.renderer.canceled = {"a"}
    place.drop("a", [60] * 30)
    place.drop("b", [60])
    report = place.run()
    assert report.exit_code == 3
    assert report.standings["a.parquet"][0] == "left"
    assert report.standings["b.parquet"] == ("done", "1 clip")
    assert 0 < len(place.rendered("a")) < 30
