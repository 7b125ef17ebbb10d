"""What each clip under way has gone through in its attempt, a line each, for its log. It decides nothing."""

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)


class Diary:
    """Lines by clip id, until the attempt that they tell of has ended."""

    def __init__(self, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._lines: dict[str, list[str]] = defaultdict(list)

    def note(self, clip_id: str, text: str) -> None:
        self._lines[clip_id].append(f"{self._now().isoformat(timespec='milliseconds')} {text}")

    def end(self, clip_id: str) -> list[str]:
        """The attempt's lines, which are forgotten."""
        return self._lines.pop(clip_id, [])
