"""Two weeks of nights, one with each change of daylight saving: new manifests, a crash, an overrun, a bad manifest, a
poisonous clip, a budget. Every row is done once, every window and budget is kept, every notice is sent once.
"""

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from tests.pipeline.nightly.nights import LATE, QUARTER_S, Crash, Studio, studio, utc

HOUR = 3600.0
BUDGET = 60.0  # GPU-hours of 8 GPUs: 7.5 hours, half an hour less than a night and 30 minutes more than that in spring
WEEKS = {
    "autumn": ("2026-10-23T12:00", "2026-10-30T12:00"),  # the night of the 24th lasts 9 hours
    "spring": ("2027-03-25T12:00", "2027-04-01T12:00"),  # that of the 27th 7
}


def live(place: Studio, until: str) -> int:
    """One process for ever, started again when it is gone. How often it was gone."""
    place.clock.until = utc(until)
    crashes = 0
    while True:
        try:
            place.nightly().run()
            raise AssertionError("forever ended")
        except KeyboardInterrupt:
            return crashes
        except Crash:
            crashes += 1
            place.clock.moment += timedelta(minutes=7)


@pytest.mark.parametrize("week", WEEKS)
def test_a_week_of_nights(tmp_path: Path, week: str) -> None:
    start, end = WEEKS[week]
    place = studio(
        tmp_path,
        at=start,
        forever=True,
        budget=BUDGET,
        failed_threshold=1,
        must_finish_by="09:00",
        retry_after_s=600,
        poll_s=300,
    )
    renderer = place.renderer
    renderer.crashes = {"crashing": 4}
    renderer.slower = lambda name: 2.5 if name == "slow" else 1.0
    renderer.breaks["unlucky"] = 1
    place.drop("first", [600] * 6)
    place.drop("huge", [1800] * 40)  # 20 hours: three nights at least
    place.drop("urgent", [600] * 3)
    place.drop("bad", {"fine": "5", "broken": "no number"})
    place.drop("crashing", [900] * 8)
    live_until = [utc(start) + timedelta(days=n) for n in (2, 4)]
    crashes = live(place, live_until[0].replace(tzinfo=None).isoformat())
    place.drop("slow", [1200] * 6)  # 2 hours by the estimate, 5 hours in truth
    place.drop("poisoned", {"good-0": 300, "poison-1": 300, "good-2": 300})
    place.drop("unlucky", [300] * 2)
    crashes += live(place, live_until[1].replace(tzinfo=None).isoformat())
    place.drop("bad", {"fine": "5", "broken": "6"})
    crashes += live(place, end)
    assert crashes == 1

    every_row_is_done_once(place)
    every_window_is_kept(place)
    the_budget_is_kept(place)
    every_notice_is_sent_once(place)
    assert renderer.looked["first"] < 20  # once a night and once after each render before its own


def every_row_is_done_once(place: Studio) -> None:
    wanted = {
        "first": 6,
        "huge": 40,
        "urgent": 3,
        "bad": 2,
        "crashing": 8,
        "slow": 6,
        "poisoned": 2,
        "unlucky": 2,
    }
    # The recorder itself refuses a second record of a clip.
    assert {name: len(place.rendered(name)) for name in wanted} == wanted
    assert set(place.renderer.memory.of("poisoned").failures) == {"poison-1"}


def every_window_is_kept(place: Studio) -> None:
    window = place.settings.window
    nights = Counter[str]()
    for name, began, ended in place.renderer.memory.spans:
        night = window.next_night(began)
        assert night.opens_at <= began, f"{name} began at {began}, before {night}"
        assert ended <= night.closes_at + LATE, f"{name} ended at {ended}, after {night}"
        nights[name] += 1
    assert nights["huge"] >= 3
    assert nights["slow"] == 2  # its estimate was wrong: the night's end stopped it
    assert nights["first"] == nights["urgent"] == 1
    assert nights["crashing"] == 2
    first = [name for name, _, _ in place.renderer.memory.spans]
    assert first[0] == "urgent"


def the_budget_is_kept(place: Studio) -> None:
    used = Counter[str]()
    for path in (Path(place.settings.output) / "_nightly" / "work").rglob("*.json"):
        entry = json.loads(path.read_text())
        assert entry["ended_at"] is not None, entry
        used[entry["night"]] += (
            (utc(entry["ended_at"][:19]) - utc(entry["started_at"][:19])).total_seconds() * entry["gpus"] / 3600
        )
    assert used
    assert max(used.values()) <= BUDGET + 8 * 3 * QUARTER_S / HOUR  # the simulation looks so seldom
    assert max(used.values()) > 0.8 * BUDGET


def every_notice_is_sent_once(place: Studio) -> None:
    got = place.mailbox.got
    assert not [key for key, count in Counter(each["id"] for each in got).items() if count > 1]
    events = Counter(place.mailbox.events)
    done = {"first", "huge", "urgent", "bad", "crashing", "slow", "unlucky"}
    assert {name for event, name in events if event == "done"} == done
    assert all(events["done", name] == 1 for name in done)
    kinds = Counter((each["manifest"], each["details"]["kind"]) for each in got if each["event"] == "failed")
    assert kinds == {("bad", "manifest"): 1, ("poisoned", "clips"): 1, ("unlucky", "environment"): 1}
    thresholds = Counter((each["manifest"], each["details"]["kind"]) for each in got if each["event"] == "threshold")
    assert thresholds["poisoned", "failed"] == 1
    assert thresholds[None, "budget"] >= 2  # one for each night that came so far
    late = Counter(each["manifest"] for each in got if each["event"] == "deadline_at_risk")
    assert late["huge"] >= 2  # one for each morning that it would miss
