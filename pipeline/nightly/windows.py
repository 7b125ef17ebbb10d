"""When it is night: a window of hours on the clocks of one time zone, both changes of daylight saving included. Pure.

A window opens and closes at the first moment at which the clock on the wall shows its hour or a later one: an hour that
is skipped in spring is reached when it is skipped, one that comes twice in autumn when it comes first.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pipeline.errors import ConfigError

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
HOURS = re.compile(r"(\d{1,2}):(\d\d) ?- ?(\d{1,2}):(\d\d)")
HOUR = re.compile(r"(\d{1,2}):(\d\d)")


@dataclass(frozen=True, kw_only=True)
class Night:
    """One opening of the window, in UTC. Named by the day on which it opens."""

    name: str
    opens_at: datetime
    closes_at: datetime

    @property
    def seconds(self) -> float:
        return (self.closes_at - self.opens_at).total_seconds()

    def holds(self, moment: datetime) -> bool:
        return self.opens_at <= moment < self.closes_at


@dataclass(frozen=True, kw_only=True)
class Window:
    """`hours` such as 22:00-06:00 or 00:00-24:00 in `timezone`, a name such as Europe/Berlin."""

    hours: str
    timezone: str
    zone: ZoneInfo = field(init=False, repr=False)
    _opens: int = field(init=False, repr=False)  # minutes after midnight
    _closes: int = field(init=False, repr=False)  # of the day on which it opens; a later day's count on

    def __post_init__(self) -> None:
        opens, closes = _minutes(self.hours)
        for name, value in (("_opens", opens), ("_closes", closes), ("zone", _zone(self.timezone))):
            object.__setattr__(self, name, value)

    @property
    def opens(self) -> str:
        """HH:MM."""
        return f"{self._opens // 60:02}:{self._opens % 60:02}"

    @property
    def usual_s(self) -> float:
        """How long it is open on a day without a change of the clocks."""
        return (self._closes - self._opens) * 60.0

    def night(self, day: date) -> Night:
        """That which opens on a day."""
        opens, closes = (self._reached(day, minutes) for minutes in (self._opens, self._closes))
        return Night(name=day.isoformat(), opens_at=opens, closes_at=closes)

    def next_night(self, now: datetime) -> Night:
        """That which is open, else the next to open."""
        day = now.astimezone(self.zone).date() - DAY
        while (night := self.night(day)).closes_at <= now:
            day += DAY
        return night

    def after(self, night: Night) -> Night:
        return self.night(date.fromisoformat(night.name) + DAY)

    def nights_before(self, night: Night, count: int) -> list[str]:
        """Names of the night and of those before it, `count` in all."""
        day = date.fromisoformat(night.name)
        return [(day - each * DAY).isoformat() for each in range(count)]

    def moment(self, text: str, *, night: Night) -> datetime:
        """A moment that a person named: 2026-11-24T08:00 or a full ISO time; 08:00 is the first after the opening."""
        if match := HOUR.fullmatch(text):
            minutes = _minute("must_finish_by", text, *match.groups())
            day = date.fromisoformat(night.name)
            return next(
                reached for n in range(3) if (reached := self._reached(day + n * DAY, minutes)) > night.opens_at
            )
        try:
            named = datetime.fromisoformat(text)
        except ValueError as error:
            raise ConfigError(f"must_finish_by is {text!r}, expected 08:00 or 2026-11-24T08:00") from error
        return named.astimezone(UTC) if named.tzinfo else self._first(named)

    def shown(self, moment: datetime) -> str:
        """On the wall's clock, for people."""
        return f"{moment.astimezone(self.zone):%a %Y-%m-%d %H:%M %Z}"

    def _reached(self, day: date, minutes: int) -> datetime:
        return self._first(datetime.combine(day, time()) + timedelta(minutes=minutes))

    def _first(self, wall: datetime) -> datetime:
        """The first moment, in UTC, at which the clock shows `wall` or later."""
        late = wall.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
        if late.astimezone(self.zone).replace(tzinfo=None) == wall:
            return late
        early = wall.replace(tzinfo=self.zone, fold=1).astimezone(UTC)  # skipped: the change is between the two
        while late - early > SECOND:
            middle = early + (late - early) / 2
            if middle.astimezone(self.zone).replace(tzinfo=None) >= wall:
                late = middle
            else:
                early = middle
        return late.replace(microsecond=0)


def _minutes(hours: str) -> tuple[int, int]:
    match = HOURS.fullmatch(hours)
    if match is None:
        raise ConfigError(f"window is {hours!r}, expected two times such as 22:00-06:00")
    opens = _minute("window", hours, match[1], match[2])
    closes = 24 * 60 if (match[3], match[4]) == ("24", "00") else _minute("window", hours, match[3], match[4])
    if opens == closes:
        raise ConfigError(f"window is {hours!r}, which opens and closes at once; 00:00-24:00 is the whole day")
    return opens, closes if closes > opens else closes + 24 * 60


def _minute(key: str, text: str, hour: str, minute: str) -> int:
    if int(hour) > 23 or int(minute) > 59:
        raise ConfigError(f"{key} is {text!r}, expected hours up to 23 and minutes up to 59")
    return int(hour) * 60 + int(minute)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        if not available_timezones():
            raise ConfigError(f"timezone is {name!r}, but this machine knows no time zones: install tzdata") from error
        raise ConfigError(f"timezone is {name!r}, expected a name such as Europe/Berlin or UTC") from error
