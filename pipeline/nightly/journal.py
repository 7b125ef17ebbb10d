"""What each night used: `work/<night>/`, an entry for every render, written before it starts and again at its end.

An entry without an end, found by the next nightly, is of one that was killed. It is charged until then, or until the
render had to end: a budget is rather spent too early than too late.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from pipeline.errors import StoreError
from pipeline.nightly.renderer import Rendered
from pipeline.nightly.windows import Night
from pipeline.store import Store

WORK = "work"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One render of one manifest. Times are ISO, in UTC."""

    manifest: str
    night: str
    started_at: str
    must_end_by: str
    gpus: int  # on CPUs ranks
    ended_at: str | None = None
    exit_code: int | None = None
    num_rendered: int = 0

    def gpu_hours(self, now: datetime) -> float:
        ended = datetime.fromisoformat(self.ended_at) if self.ended_at else now
        return max((ended - datetime.fromisoformat(self.started_at)).total_seconds(), 0.0) * self.gpus / 3600


class Journal:
    """Below the nightly's own folder. One nightly at a time writes there: it holds a lease."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, dict[str, Entry]] = {}  # night -> key -> entry

    def begin(self, manifest: str, *, night: Night, now: datetime, must_end_by: datetime, gpus: int) -> Entry:
        entry = Entry(
            manifest=manifest,
            night=night.name,
            started_at=now.isoformat(),
            must_end_by=must_end_by.isoformat(),
            gpus=gpus,
        )
        self._write(entry, now)
        return entry

    def end(self, entry: Entry, *, now: datetime, rendered: Rendered | None) -> None:
        """`rendered` None: an error ended it."""
        entry = replace(entry, ended_at=now.isoformat())
        if rendered is not None:
            summary = rendered.summary
            entry = replace(entry, exit_code=summary.exit_code, num_rendered=summary.num_rendered)
            entry = replace(entry, gpus=rendered.gpus or entry.gpus)
        self._write(entry, now)

    def gpu_hours(self, night: Night, *, now: datetime) -> float:
        """Used in a night so far."""
        return sum(entry.gpu_hours(now) for entry in self._entries(night.name, now).values())

    def _entries(self, night: str, now: datetime) -> dict[str, Entry]:
        if night not in self._read:
            keys = [each.key for each in self._store.list(f"{WORK}/{night}")]
            self._read = {night: {key: self._entry(key) for key in keys}}
            for entry in [each for each in self._read[night].values() if each.ended_at is None]:
                last = min(now, datetime.fromisoformat(entry.must_end_by))
                self._write(replace(entry, ended_at=last.isoformat()), now)
        return self._read[night]

    def _entry(self, key: str) -> Entry:
        data = self._store.get(key)
        try:
            return Entry(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self._store.where(key)} is no entry of a night: {error}. Delete it") from error

    def _write(self, entry: Entry, now: datetime) -> None:
        stamp = datetime.fromisoformat(entry.started_at)
        key = f"{WORK}/{entry.night}/{stamp:%Y%m%d-%H%M%S-%f}.json"
        self._entries(entry.night, now)[key] = entry
        self._store.put(key, json.dumps(asdict(entry), ensure_ascii=False, indent=1).encode() + b"\n")
