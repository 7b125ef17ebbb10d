"""`happyhorse logs output=Y [clip=ID] [follow=true]`: a run's own log, or that of each attempt at a clip.

They are read from the output alone. A run at work writes its log once a minute, a clip's when an attempt has ended.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import sleep
from typing import Any

from jobs.status import standing
from jobs.typed import build
from pipeline.clip_logs import read_clip_logs
from pipeline.counting import counted
from pipeline.errors import ConfigError
from pipeline.ledger import Ledger
from pipeline.requeue import clip_of, given_up
from pipeline.run_log import run_log_key, split_log
from pipeline.status import RunStatus, read_status
from pipeline.store import StorageSettings, Store, open_store

POLL_S = 3.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LogsSettings:
    output: str
    storage: StorageSettings
    clip: str | None
    follow: bool


def logs(values: Mapping[str, Any]) -> int:
    settings = build(LogsSettings, {key: value for key, value in values.items() if key != "job"}, at="")
    store = open_store(settings.output, settings.storage)
    try:
        found = _wait_for_run(store) if settings.follow else read_status(store)
        reader = _OfClip(store, settings.clip) if settings.clip is not None else _OfRun(store, found.run_id)
        printed = _follow(store, reader, found) if settings.follow and found.holds else _print(reader.new())
    except KeyboardInterrupt:
        return 0
    end = list(reader.end(found))
    if not printed and not end:
        raise ConfigError(reader.nothing(found))
    _print(iter(end))
    return 0


def _wait_for_run(store: Store) -> RunStatus:
    """One that was submitted begins when its cluster has room."""
    is_said = False
    while True:
        try:
            return read_status(store)
        except ConfigError as error:
            if not is_said:
                log.info("%s; waiting for one", error)
            is_said = True
            sleep(POLL_S)


def _follow(store: Store, reader: "_OfRun | _OfClip", found: RunStatus) -> int:
    """Until the run is over."""
    run_id, printed = found.run_id, _print(reader.new())
    while found.run_id == run_id and found.holds and found.seen is not None and found.seen.state == "at work":
        sleep(POLL_S)
        found = read_status(store)  # it writes its last lines before it gives the output back
        printed += _print(reader.new())
    print(f"run {found.run_id} {standing(found)}", flush=True)
    return printed


def _print(lines: Iterator[str]) -> int:
    count = 0
    for line in lines:
        print(line, flush=True)
        count += 1
    return count


@dataclass
class _OfRun:
    store: Store
    run_id: str
    _num_printed: int = 0

    def new(self) -> Iterator[str]:
        """Lines that were not printed yet."""
        key = run_log_key(self.run_id)
        if self.store.head(key) is None:
            return
        num_cut, lines = split_log(self.store.get(key).decode(errors="replace"))
        if num_cut > self._num_printed:
            yield f"(left out: {counted(num_cut - self._num_printed, 'line')})"
            self._num_printed = num_cut
        yield from lines[self._num_printed - num_cut :]
        self._num_printed = num_cut + len(lines)

    def end(self, found: RunStatus) -> Iterator[str]:
        yield from ()

    def nothing(self, found: RunStatus) -> str:
        return f"{self.store.where(run_log_key(self.run_id))} is not there: run {self.run_id} {standing(found)}"


@dataclass
class _OfClip:
    store: Store
    clip_id: str
    _printed: set[str] = field(default_factory=set)

    def new(self) -> Iterator[str]:
        """Of attempts that were not printed yet."""
        for each in read_clip_logs(self.store, self.clip_id):
            if each.key not in self._printed:
                self._printed.add(each.key)
                yield from each.text.splitlines()

    def end(self, found: RunStatus) -> Iterator[str]:
        """What became of it."""
        for clip in given_up(self.store, clip_ids=[self.clip_id]):
            yield f"failed {clip}"
        ledger = Ledger(self.store)
        for key in ledger.record_keys():
            if clip_of(key) == self.clip_id:
                record = ledger.read_record(key)
                yield f"recorded in {key}: attempt {record.finished.attempt}, {record.num_attempts} in all"

    def nothing(self, found: RunStatus) -> str:
        where = self.store.where(f"logs/{self.clip_id}.*.log")
        if found.is_live:
            return f"{where}: no attempt at such a clip has ended yet"
        return f"{where}: there is none, nor a record or a failure of a clip {self.clip_id}"
