"""`happyhorse cancel|pause|resume output=Y [reason=TEXT]`: what people ask of a run, written below its output.

They work from anywhere the output can be written. Asking twice is asking once; exit 0 in either case, 2 where there is
no output.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.typed import build
from pipeline.control import PAUSE, ask, cancel_key, new_request, read_request, resume_command
from pipeline.lease.looking import look
from pipeline.status import RunStatus, read_status
from pipeline.store import StorageSettings, Store, open_store


@dataclass(frozen=True, kw_only=True)
class ControlSettings:
    output: str
    storage: StorageSettings
    reason: str | None = None


def cancel(values: Mapping[str, Any]) -> int:
    store, found, settings = _open(values)
    if not found.is_live:
        print(f"{store.uri}: nothing is at work there, so nothing is canceled; {_last(found)}")
    else:
        standing = ask(store, cancel_key(found.run_id), new_request(settings.reason))
        print(f"{store.uri}: run {found.run_id} is canceled {standing}")
        print("it starts nothing new, finishes what is in flight and ends; the same render command goes on later")
        if found.seen is not None and found.seen.state == "silent":
            print("it has not renewed its lease for long, and is probably gone already")
    if found.asked.pause is not None:
        print(f"the output stays paused, {found.asked.pause}: {resume_command(store)} lets a render start again")
    return 0


def pause(values: Mapping[str, Any]) -> int:
    store, found, settings = _open(values)
    standing = ask(store, PAUSE, new_request(settings.reason))
    print(f"{store.uri}: paused {standing}")
    if found.is_live:
        print(f"run {found.run_id} finishes what is in flight, gives its groups back and waits")
    else:
        print("nothing is at work there; a render that is started leaves again")
    print(f"{resume_command(store)} lets it go on")
    return 0


def resume(values: Mapping[str, Any]) -> int:
    settings = _settings(values)
    store = open_store(settings.output, settings.storage)
    standing = read_request(store, PAUSE)
    if standing is None:
        read_status(store)  # an output that was mistyped is no output that was not paused
        print(f"{store.uri} was not paused")
        return 0
    store.delete(PAUSE)
    print(f"{store.uri}: no longer paused; it was {standing}")
    seen = look(store)
    is_live = seen is not None and seen.may_live
    print("the run that is at work goes on" if is_live else "nothing is at work there; a render may start again")
    return 0


def _open(values: Mapping[str, Any]) -> tuple[Store, RunStatus, ControlSettings]:
    settings = _settings(values)
    store = open_store(settings.output, settings.storage)
    return store, read_status(store), settings


def _settings(values: Mapping[str, Any]) -> ControlSettings:
    return build(ControlSettings, {key: value for key, value in values.items() if key != "job"}, at="")


def _last(found: RunStatus) -> str:
    ended = (found.run or {}).get("ended_at")
    return f"the last run, {found.run_id}, ended at {ended}" if ended else f"the last run, {found.run_id}, was killed"
