"""`happyhorse status output=Y [format=json]`: how a run stands, from its output alone. Exit 0; 2: there is none."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from jobs.typed import build
from pipeline.control import resume_command
from pipeline.counting import counted
from pipeline.progress import duration
from pipeline.status import RunStatus, read_status
from pipeline.store import StorageSettings, Store, open_store
from pipeline.types import JsonDict

SHOWN = 10  # reasons of failures; JSON has all
GROUPS_SHOWN = 32
RUN_KEYS = (
    *("manifest", "model", "started_at", "ended_at", "written_at", "num_clips", "states", "groups"),
    *("eta_s", "clips_per_hour", "paused", "stopped"),
)


@dataclass(frozen=True, kw_only=True)
class StatusSettings:
    output: str
    storage: StorageSettings
    format: Literal["table", "json"]


def status(values: Mapping[str, Any]) -> int:
    settings = build(StatusSettings, {key: value for key, value in values.items() if key != "job"}, at="")
    store = open_store(settings.output, settings.storage)
    found = read_status(store)
    if settings.format == "json":
        print(json.dumps(_values(store, found), ensure_ascii=False, indent=1, allow_nan=False))
    else:
        print(*_lines(store, found), sep="\n")
    return 0


def _values(store: Store, found: RunStatus) -> JsonDict:
    run = found.run or {}
    asked = {"pause": found.asked.pause, "cancel": found.asked.cancel}
    return {
        "output": store.uri,
        "run_id": found.run_id,
        "live": found.is_live,
        "lease": found.seen.state if found.seen else None,
        "holder": asdict(found.seen.holder) if found.seen else None,
        "renewed_at": found.seen.renewed_at.isoformat() if found.seen else None,
        **{key: run.get(key) for key in RUN_KEYS},
        "age_s": found.age_s,
        "failures": [asdict(reason) for reason in found.reasons],
        "asked": {name: asdict(request) for name, request in asked.items() if request is not None},
    }


def _lines(store: Store, found: RunStatus) -> Iterator[str]:
    yield f"{store.uri}: run {found.run_id} {standing(found)}"
    run = found.run
    if run is None:
        yield "  it has written nothing of itself yet"
    else:
        yield from (f"  {name:<9} {text}" for name, text in _table(run, found))
        yield from _failures(found)
    yield from (f"  {name:<9} {text}" for name, text in _asked(store, found))


def standing(found: RunStatus) -> str:
    """Whether it is at work, in words."""
    seen, run = found.seen, found.run or {}
    if run.get("ended_at") is not None:
        why = f": {run['stopped']}" if run.get("stopped") else ""
        return f"ended at {run['ended_at']}{why}"
    if not found.is_live or seen is None:
        return "is no more, and did not say that it ended: it was killed. The same render command goes on"
    who = f"{seen.holder.user} on {seen.holder.host}, process {seen.holder.pid}, since {seen.holder.since}"
    if seen.state == "silent":
        return f"gave its last sign of life at {seen.renewed_at.isoformat(timespec='seconds')}: probably gone ({who})"
    return f"is at work ({who})"


def _table(run: JsonDict, found: RunStatus) -> Iterator[tuple[str, str]]:
    states: Mapping[str, int] = run.get("states") or {}
    counts = ", ".join(f"{count:,} {state}" for state, count in states.items() if count)
    yield "clips", f"{run.get('num_clips', 0):,}: {counts}"
    pace = [f"{run['clips_per_hour']:.0f} clips an hour"] if run.get("clips_per_hour") else []
    if found.is_live and run.get("eta_s") is not None and not run.get("paused"):
        pace.append(f"{duration(run['eta_s'])} left")
    if pace:
        yield "pace", ", ".join(pace)
    if found.is_live:
        groups = [each for each in run.get("groups") or [] if not run.get("paused") or each.get("clip_id")]
        for group in groups[:GROUPS_SHOWN]:
            yield str(group["group_id"]), _doing(group)
        if len(groups) > GROUPS_SHOWN:
            yield "", f"and {counted(len(groups) - GROUPS_SHOWN, 'more group')} (format=json has all)"
        if run.get("stopped"):
            yield "stopping", str(run["stopped"])
    if found.age_s is not None:
        yield "written", f"{duration(found.age_s)} ago"


def _doing(group: Mapping[str, Any]) -> str:
    work = f" with {group['clip_id']}, step {group['step']} of {group['num_steps']}" if group.get("clip_id") else ""
    nodes = f", on {', '.join(group['nodes'])}" if group.get("nodes") else ""
    return f"{group['state']}{work}; {counted(group['num_clips'], 'clip')} so far{nodes}"


def _failures(found: RunStatus) -> Iterator[str]:
    for reason in found.reasons[:SHOWN]:
        more = ", ..." if reason.count > len(reason.clips) else ""
        yield f"  {reason.count:,} failed: {reason.text} ({', '.join(reason.clips)}{more})"
    if len(found.reasons) > SHOWN:
        yield f"  and for {counted(len(found.reasons) - SHOWN, 'more reason')} (format=json has all)"


def _asked(store: Store, found: RunStatus) -> Iterator[tuple[str, str]]:
    pause, cancel = found.asked.pause, found.asked.cancel
    if pause is not None:
        done = (found.run or {}).get("paused") is not None
        state = "" if done or not found.is_live else ", which it has not noticed yet"
        yield "paused", f"{pause}{state}; {resume_command(store)} lets it go on"
    if cancel is not None and found.is_live:
        yield "canceled", f"{cancel}; what is in flight may still finish"
