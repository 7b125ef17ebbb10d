"""One night at a time: what a single pass leaves, in every state that a manifest can be in."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.errors import RenderError, StoreError
from pipeline.nightly.inbox import Found
from pipeline.nightly.renderer import Look
from tests.pipeline.nightly.nights import BREAKAGES, LATE, Crash, SimRenderer, Studio, studio, utc

EVENING = "2026-11-21T21:00"  # 22:00 in Berlin


def states(place: Studio) -> dict[str, str]:
    return {file: state for file, (state, _) in place.run().standings.items()}


def test_everything_is_rendered_and_the_second_time_nothing(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING)
    place.drop("a", [60, 60])
    place.drop("b", [60])
    report = place.run()
    assert report.exit_code == 0
    assert report.standings == {"a.parquet": ("done", "2 clips"), "b.parquet": ("done", "1 clip")}
    assert place.mailbox.events == [("done", "a"), ("done", "b")]
    assert place.run().exit_code == 0
    assert len(place.renderer.memory.spans) == 2
    assert len(place.mailbox.got) == 2


def test_new_rows_are_work_again_and_news_again(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING)
    place.drop("a", {"x": 60})
    place.run()
    place.drop("a", {"x": 60, "y": 60})
    assert place.run().exit_code == 0
    assert place.rendered("a") == {"x", "y"}
    assert place.mailbox.events == [("done", "a"), ("done", "a")]


def test_a_bad_manifest_is_set_aside_and_stops_no_other(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING)
    bad = place.drop("bad", {"x": "no number"})
    before = bad.read_bytes()
    place.drop("good", [60])
    report = place.run()
    assert report.exit_code == 1
    assert place.rendered("good") == {"good-0"}
    state, line = report.standings["bad.parquet"]
    assert state == "rejected"
    assert "1 problem, the first: row 0, column prompt: got 'no number', expected a text" in line
    aside = tmp_path / "output" / "rejected" / "bad"
    assert {path.name for path in aside.iterdir()} == {"findings.txt", "findings.parquet"}
    assert "row 0, column prompt" in (aside / "findings.txt").read_text()
    assert bad.read_bytes() == before
    assert place.run().exit_code == 1
    assert place.mailbox.events.count(("failed", "bad")) == 1  # once for this file, whenever it is looked at

    place.drop("bad", {"x": 60})
    assert place.run().exit_code == 0
    assert not aside.exists() or not list(aside.iterdir())


def test_what_would_not_end_waits_and_what_would_goes_first(tmp_path: Path) -> None:
    place = studio(tmp_path, at="2026-11-22T04:00")  # an hour is left
    place.drop("long", [1800] * 4, at=utc("2026-11-20T10:00"))
    place.drop("short", [600])
    report = place.run()
    assert report.exit_code == 3
    assert report.standings["long.parquet"][0] == "left"
    assert "would take 2 h 02 min, " in report.standings["long.parquet"][1]
    assert place.rendered("long") == set()
    assert place.rendered("short") == {"short-0"}
    place.clock.moment = utc("2026-11-22T21:00")
    assert place.run().exit_code == 0
    assert len(place.rendered("long")) == 4


def test_no_clip_starts_that_would_not_end(tmp_path: Path) -> None:
    place = studio(tmp_path, at="2026-11-22T04:00")
    place.drop("huge", [1500] * 40)  # 16 hours: it may start. Two clips end, a third would not
    assert place.run().exit_code == 3
    assert len(place.rendered("huge")) == 2
    (span,) = place.renderer.memory.spans
    assert span[2] < utc("2026-11-22T04:53")  # nothing was in work any more, so it did not wait for 05:00


def test_an_overrun_is_stopped_when_the_window_closes(tmp_path: Path) -> None:
    place = studio(tmp_path, at="2026-11-22T04:00")
    place.renderer.slower = lambda name: 3.0
    place.drop("slow", [600] * 5)
    report = place.run()
    assert report.exit_code == 3
    assert (report.night.name, report.next_opening) == ("2026-11-21", utc("2026-11-22T21:00"))
    assert report.standings["slow.parquet"][1].endswith("clips to render")
    assert place.clock.slept == [0.0]  # it does not wait for the next night
    assert 0 < len(place.rendered("slow")) < 5
    assert place.renderer.memory.spans[0][2] <= utc("2026-11-22T05:00") + LATE
    place.clock.moment = utc("2026-11-22T21:00")
    assert place.run().exit_code == 0
    assert len(place.rendered("slow")) == 5


def test_without_an_estimate_it_starts_and_the_window_stops_it(tmp_path: Path) -> None:
    place = studio(tmp_path, at="2026-11-22T04:00")
    place.renderer.unmeasured = {"new"}
    place.drop("new", [1500] * 5)
    assert place.run().exit_code == 3
    assert len(place.rendered("new")) == 2
    assert utc("2026-11-22T05:00") <= place.renderer.memory.spans[0][2] <= utc("2026-11-22T05:00") + LATE


def test_a_closed_window_starts_nothing(tmp_path: Path) -> None:
    place = studio(tmp_path, at="2026-11-22T12:00")
    place.drop("a", [60])
    report = place.run()
    assert report.exit_code == 3
    assert report.standings["a.parquet"] == ("left", "1 of 1 clip to render: the window is closed")
    assert report.next_opening == utc("2026-11-22T21:00")
    assert not place.renderer.memory.spans
    (tmp_path / "inbox" / "a.parquet").unlink()
    assert place.run().exit_code == 0


def test_whoever_comes_early_waits_for_the_window(tmp_path: Path) -> None:
    place = studio(tmp_path, at="2026-11-21T20:56")
    place.drop("a", [60])
    assert place.run().exit_code == 0
    assert place.renderer.memory.spans[0][1] >= utc("2026-11-21T21:00")
    assert sum(place.clock.slept) == pytest.approx(240, abs=1)


def test_the_lease_of_another_run_skips_its_manifest_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = studio(tmp_path, at=EVENING)
    place.renderer.held = {"a"}
    place.drop("a", [60])
    place.drop("b", [60])
    report = place.run()
    assert report.exit_code == 4
    assert report.standings == {
        "a.parquet": ("held", "a is held by a run that lives"),
        "b.parquet": ("done", "1 clip"),
    }
    said = [record.getMessage() for record in caplog.records if "is skipped this time" in record.getMessage()]
    assert said == ["a.parquet is skipped this time: a is held by a run that lives"]


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_the_environment_stops_one_and_others_go_on(tmp_path: Path, breakage: RenderError) -> None:
    place = studio(tmp_path, at=EVENING)
    place.renderer.breaks["a"], place.renderer.breakage = 9, breakage
    place.drop("a", [60])
    place.drop("b", [60])
    report = place.run()
    assert report.exit_code == 5
    assert report.standings["a.parquet"] == ("stopped", str(breakage))
    assert place.rendered("b") == {"b-0"}
    assert place.mailbox.events.count(("failed", "a")) == 1


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING)
    note = tmp_path / "output" / "_nightly" / "work" / "2026-11-21" / "x.json"
    note.parent.mkdir(parents=True)
    note.write_text("{}")
    with pytest.raises(StoreError, match=r"x\.json is no entry of a night"):
        place.run()


def test_an_inbox_that_cannot_be_listed_ends_one_night_at_once(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING)
    nightly = place.nightly()
    (tmp_path / "inbox").rmdir()
    (tmp_path / "inbox").write_text("no folder")
    with pytest.raises(StoreError, match="inbox"):
        nightly.run()


def test_a_person_who_stops_a_render_stops_the_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = studio(tmp_path, at=EVENING)
    place.drop("a", [600] * 5, at=utc("2026-11-20T00:00"))
    place.drop("b", [600])
    original = SimRenderer.render

    def render(self: SimRenderer, found: Found, /, *, stop: object, observe: object) -> object:
        def press(snapshot: object) -> None:
            if snapshot.num_succeeded == 1 and not stop.count:  # type: ignore[attr-defined]
                stop.count = 1  # type: ignore[attr-defined]
            observe(snapshot)  # type: ignore[operator]

        return original(self, found, stop=stop, observe=press)  # type: ignore[arg-type]

    monkeypatch.setattr(SimRenderer, "render", render)
    assert place.run().exit_code == 3
    assert place.rendered("b") == set()
    assert 0 < len(place.rendered("a")) < 5


def test_a_file_that_is_being_written_is_left_for_the_next_look(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING)
    place.drop("half", {"x": "no number"}, at=place.clock.now() - timedelta(seconds=4))
    nightly = place.nightly()
    assert nightly._step() == 10.0
    assert not (tmp_path / "output" / "rejected").exists()
    place.drop("half", {"x": 60}, at=place.clock.now() - timedelta(seconds=4))
    assert place.run().exit_code == 0


def test_two_that_would_share_an_output_are_both_refused(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING)
    for name in ("shots", "Shots"):
        place.drop(name, {f"{name}-1": 60})
    place.drop("rejected", [60])
    place.drop("other", [60])
    if not (tmp_path / "inbox" / "Shots.parquet").samefile(tmp_path / "inbox" / "shots.parquet"):
        report = place.run()
        assert {file: state for file, (state, _) in report.standings.items()} == {
            "Shots.parquet": "rejected",
            "shots.parquet": "rejected",
            "rejected.parquet": "rejected",
            "other.parquet": "done",
        }
        assert "the same output as shots.parquet" in report.standings["Shots.parquet"][1]
        assert (tmp_path / "output" / "rejected" / "Shots.parquet" / "findings.txt").is_file()


def test_other_things_in_the_inbox_are_no_manifests(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING)
    inbox = tmp_path / "inbox"
    (inbox / "images").mkdir()
    for name in ("images/a.parquet", ".hidden.parquet", "_notes.parquet", "table.csv", "a.parquet.tmp"):
        (inbox / name).write_text("anything")
        os.utime(inbox / name, (0, 0))
    assert place.run().standings == {}


def test_a_budget_stops_new_work_and_is_remembered_by_the_next_process(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING, budget=16.0)  # two hours of 8 GPUs
    place.drop("a", [1800] * 3, at=utc("2026-11-20T00:00"))
    place.drop("b", [1800] * 2)
    report = place.run()
    assert report.exit_code == 3
    assert "are left of the budget" in report.standings["b.parquet"][1]
    assert report.gpu_hours == pytest.approx(8 * (3 * 1800 + 125) / 3600, rel=0.02)
    assert place.mailbox.events == [("done", "a")]
    again = place.run()
    assert place.rendered("b") == set()
    assert again.gpu_hours == pytest.approx(report.gpu_hours)
    place.clock.moment = utc("2026-11-22T21:00")
    assert place.run().exit_code == 0
    assert len(place.rendered("b")) == 2


def test_what_a_killed_process_used_is_charged(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING, budget=16.0)
    place.renderer.crashes = {"a": 1}
    place.drop("a", [1800] * 3)
    with pytest.raises(Crash):
        place.run()
    report = place.run()  # 36 of 120 minutes are gone; the rest of it would take 62
    assert report.exit_code == 0
    assert report.gpu_hours == pytest.approx(8 * (3 * 1800 + 2 * 125) / 3600, rel=0.1)
    assert len(place.rendered("a")) == 3


def test_a_deadline_that_the_estimate_misses_is_warned_of_once(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING, must_finish_by="2026-11-22T01:00")  # 4 hours
    place.drop("long", [1800] * 9)
    place.drop("short", [60])
    place.run()
    risks = [each for each in place.mailbox.got if each["event"] == "deadline_at_risk"]
    assert [each["manifest"] for each in risks] == ["long", "short"]  # the short one comes after it
    assert risks[0]["details"]["must_finish_by"] == "2026-11-22T00:00:00+00:00"
    assert risks[0]["details"]["expected"] == "2026-11-22T01:32:00+00:00"
    place.run()
    assert len([each for each in place.mailbox.got if each["event"] == "deadline_at_risk"]) == 2


def test_a_deadline_that_an_overrun_misses_is_warned_of_while_it_renders(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING, must_finish_by="2026-11-22T01:00")
    place.renderer.slower = lambda name: 2.0
    place.drop("slow", [1200] * 8)
    place.run()
    (risk,) = [each for each in place.mailbox.got if each["event"] == "deadline_at_risk"]
    assert utc(risk["at"][:19]) < utc("2026-11-21T23:00")  # hours before it is late


def test_a_crash_between_the_last_clip_and_its_notice_loses_nothing(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING)
    place.renderer.crashes = {"a": 2}  # after its last clip
    place.drop("a", [60, 60])
    with pytest.raises(Crash):
        place.run()
    assert place.mailbox.got == []
    assert place.run().exit_code == 0
    assert place.mailbox.events == [("done", "a")]


def test_clips_that_fail_are_told_with_their_reasons(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING, failed_threshold=2)
    place.drop("a", {"poison-1": 60, "good": 60, "poison-2": 60})
    report = place.run()
    assert report.exit_code == 1
    assert report.standings["a.parquet"] == ("failed", "2 of 3 clips failed")
    by_event = {each["event"]: each for each in place.mailbox.got}
    assert by_event["threshold"]["details"] == {"kind": "failed", "num_failed": 2, "threshold": 2}
    failed = by_event["failed"]["details"]["failed"]
    assert failed == {"poison-1": "its group died", "poison-2": "its group died"}
    assert place.run().exit_code == 1
    assert len(place.mailbox.got) == 2


def test_a_manifest_that_went_bad_meanwhile_is_set_aside(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING)
    path = place.drop("a", [60])
    original = place.renderer.look

    def look(found: Found, /) -> Look:
        seen = original(found)
        place.drop("a", {"x": "no number"}, at=utc("2026-11-21T20:59"))
        return seen

    place.renderer.look = look  # type: ignore[method-assign]
    nightly = place.nightly()
    nightly._step()
    assert (tmp_path / "output" / "rejected" / "a" / "findings.txt").is_file()
    assert path.is_file()
