"""Windows of hours: across midnight, through both changes of daylight saving, in words that are wrong."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.nightly.windows import Window

SPRING, AUTUMN = date(2027, 3, 27), date(2026, 10, 24)  # the evenings before Berlin's clocks change


def berlin(hours: str) -> Window:
    return Window(hours=hours, timezone="Europe/Berlin")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_window_across_midnight_belongs_to_the_day_on_which_it_opens() -> None:
    window = berlin("22:00-06:00")
    night = window.night(date(2026, 11, 21))
    assert (night.opens_at, night.closes_at) == (utc("2026-11-21T21:00"), utc("2026-11-22T05:00"))
    for moment in ("2026-11-21T21:00", "2026-11-21T23:59", "2026-11-22T04:59:59"):
        assert window.next_night(utc(moment)) == night
        assert night.holds(utc(moment))
    for moment in ("2026-11-22T05:00", "2026-11-22T12:00"):
        assert window.next_night(utc(moment)).name == "2026-11-22"
        assert not night.holds(utc(moment))
    assert window.next_night(utc("2026-11-21T20:59:59")) == night


@pytest.mark.parametrize(
    ("hours", "day", "seconds"),
    [
        ("22:00-06:00", SPRING, 7 * 3600),
        ("22:00-06:00", AUTUMN, 9 * 3600),
        ("22:00-06:00", date(2026, 11, 21), 8 * 3600),
        ("00:00-24:00", SPRING + timedelta(days=1), 23 * 3600),
        ("00:00-24:00", AUTUMN + timedelta(days=1), 25 * 3600),
        ("22:00-02:30", SPRING, 3 * 3600 + 3600),  # 02:30 is skipped: the clock reaches it when it shows 03:00
        ("22:00-02:30", AUTUMN, 4.5 * 3600),  # 02:30 comes twice: the first counts
    ],
)
def test_a_night_lasts_as_long_as_the_clock_on_the_wall_takes(hours: str, day: date, seconds: float) -> None:
    assert berlin(hours).night(day).seconds == seconds


def test_an_hour_that_is_skipped_is_reached_when_it_is_skipped() -> None:
    night = berlin("02:30-05:00").night(SPRING + timedelta(days=1))
    assert (night.opens_at, night.closes_at) == (utc("2027-03-28T01:00"), utc("2027-03-28T03:00"))


def test_an_hour_that_comes_twice_opens_one_night_alone() -> None:
    window = berlin("02:15-02:45")
    night = window.night(AUTUMN + timedelta(days=1))
    assert (night.opens_at, night.closes_at) == (utc("2026-10-25T00:15"), utc("2026-10-25T00:45"))
    assert window.next_night(utc("2026-10-25T01:20")).name == "2026-10-26"  # 02:20 again, an hour later


def test_the_usual_length_is_that_of_a_day_without_a_change() -> None:
    assert berlin("22:00-06:00").usual_s == 8 * 3600
    assert berlin("00:00-24:00").usual_s == 24 * 3600


@given(
    st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1)),
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "UTC"]),
)
def test_nights_follow_one_another_and_never_overlap(moment: datetime, opens: int, closes: int, zone: str) -> None:
    if opens == closes:
        return
    window = Window(
        hours=f"{opens // 60:02}:{opens % 60:02}-{closes // 60:02}:{closes % 60:02}",
        timezone=zone,
    )
    now = moment.replace(tzinfo=UTC)
    night = window.next_night(now)
    assert now < night.closes_at
    assert night.holds(now) or now < night.opens_at
    assert night.opens_at <= night.closes_at
    later = window.after(night)
    assert night.closes_at <= later.opens_at
    if not night.holds(now):
        before = window.night(date.fromisoformat(night.name) - timedelta(days=1))
        assert before.closes_at <= now  # none was passed over


def test_moments_that_people_name() -> None:
    window = berlin("22:00-06:00")
    night = window.night(date(2026, 11, 21))
    assert window.moment("08:00", night=night) == utc("2026-11-22T07:00")
    assert window.moment("23:30", night=night) == utc("2026-11-21T22:30")
    assert window.moment("2026-11-24T08:00", night=night) == utc("2026-11-24T07:00")
    assert window.moment("2026-11-24T08:00+00:00", night=night) == utc("2026-11-24T08:00")
    assert window.shown(utc("2026-11-22T05:00")) == "Sun 2026-11-22 06:00 CET"


@pytest.mark.parametrize(
    ("hours", "said"),
    [
        ("22-6", "window is '22-6', expected two times such as 22:00-06:00"),
        ("22:00", "expected two times"),
        ("25:00-06:00", "hours up to 23"),
        ("22:60-06:00", "minutes up to 59"),
        ("24:00-06:00", "hours up to 23"),
        ("06:00-06:00", "opens and closes at once; 00:00-24:00 is the whole day"),
        ("", "expected two times"),
    ],
)
def test_a_wrong_window_is_said_in_one_line(hours: str, said: str) -> None:
    with pytest.raises(ConfigError, match="window is") as caught:
        berlin(hours)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Europe/Berlun", "", "../../etc/passwd", "Europe", "\x00"])
def test_an_unknown_timezone_is_said_in_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match="expected a name such as Europe/Berlin"):
        Window(hours="22:00-06:00", timezone=name)


@pytest.mark.parametrize("text", ["tomorrow", "25:00", "8", "2026-13-01T08:00"])
def test_a_wrong_moment_is_said(text: str) -> None:
    window = berlin("22:00-06:00")
    with pytest.raises(ConfigError, match="must_finish_by is"):
        window.moment(text, night=window.night(date(2026, 11, 21)))
