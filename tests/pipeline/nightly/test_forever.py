"""One process for night after night: what it outlives, and what ends even it."""

from pathlib import Path

import pytest

from pipeline.errors import LeaseLost, RenderError, StoreError
from tests.pipeline.nightly.nights import BREAKAGES, studio, utc

EVENING = "2026-11-21T21:00"  # 22:00 in Berlin


def test_for_ever_leaves_the_inbox_alone_by_day(tmp_path: Path) -> None:
    place = studio(tmp_path, at="2026-11-21T12:00", forever=True)
    place.drop("a", [60])
    place.clock.until = utc("2026-11-21T20:59")
    with pytest.raises(KeyboardInterrupt):
        place.run()
    assert not place.renderer.looked
    place.clock.until = utc("2026-11-21T21:05")
    with pytest.raises(KeyboardInterrupt):
        place.run()
    assert place.rendered("a") == {"a-0"}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_for_ever_tries_again_what_the_environment_stopped(tmp_path: Path, breakage: RenderError) -> None:
    place = studio(tmp_path, at=EVENING, forever=True)
    place.renderer.breaks["a"], place.renderer.breakage = 2, breakage
    place.drop("a", [60])
    place.clock.until = utc("2026-11-21T22:00")
    with pytest.raises(KeyboardInterrupt):
        place.run()
    assert place.rendered("a") == {"a-0"}
    assert place.mailbox.events.count(("failed", "a")) == 1  # once a night
    assert place.renderer.memory.spans[0][1] >= utc("2026-11-21T21:20")  # twice ten minutes later


def test_for_ever_outlives_an_inbox_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = studio(tmp_path, at=EVENING, forever=True)
    nightly, looks = place.nightly(), iter([None, StoreError("no route"), StoreError("no route"), None])
    original = nightly.tonight.look_around

    def look_around(*words: object) -> object:
        if error := next(looks, None):
            raise error
        return original(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(nightly.tonight, "look_around", look_around)
    place.clock.until = utc("2026-11-21T21:10")
    with pytest.raises(KeyboardInterrupt):
        nightly.run()
    assert next(looks, "all were looked at") == "all were looked at"


def test_for_ever_outlives_a_lease_that_cannot_be_renewed_yet(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING, forever=True)
    nightly, checks = place.nightly(), iter([None, StoreError("no route"), None])

    def check() -> None:
        if error := next(checks, None):
            raise error

    nightly.check_lease = check
    place.clock.until = utc("2026-11-21T21:10")
    with pytest.raises(KeyboardInterrupt):
        nightly.run()


def test_a_lost_lease_ends_even_what_runs_for_ever(tmp_path: Path) -> None:
    place = studio(tmp_path, at=EVENING, forever=True)
    nightly = place.nightly()
    checks = iter([None, None, LeaseLost("another nightly has taken it")])

    def check() -> None:
        if error := next(checks):
            raise error

    nightly.check_lease = check
    with pytest.raises(LeaseLost):
        nightly.run()
