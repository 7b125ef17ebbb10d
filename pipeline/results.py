"""What a run leaves for readers: `results.parquet`, a row for each clip, and `run.json`. Rewritten whole each time.

The manifest's columns come back unchanged; ours are named `render_...`, or `render2_...` where the manifest has such
columns (it is the results of an earlier run). The prefix in use is in the schema's metadata, under `happyhorse.prefix`.
"""

import io
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger import ClipRecord
from pipeline.manifest import Manifest
from pipeline.store import Store
from pipeline.tables import PREFIX_KEY, RESULTS
from pipeline.types import Clip, JsonDict, State

RUN = "run.json"

# Ours, in this order.
FIELDS: tuple[pa.Field, ...] = (
    pa.field("clip_id", pa.string(), nullable=False),
    pa.field("state", pa.string(), nullable=False),
    pa.field("error", pa.string()),
    pa.field("mp4", pa.string()),  # keys below the output
    pa.field("wav", pa.string()),
    pa.field("poster", pa.string()),
    pa.field("record", pa.string()),
    pa.field("seed", pa.int64(), nullable=False),
    pa.field("resolution", pa.string(), nullable=False),
    pa.field("ratio", pa.string(), nullable=False),
    pa.field("duration", pa.int64(), nullable=False),
    pa.field("width", pa.int64(), nullable=False),
    pa.field("height", pa.int64(), nullable=False),
    pa.field("num_frames", pa.int64(), nullable=False),
    pa.field("attempt", pa.string()),
    pa.field("num_attempts", pa.int64()),
    pa.field("seconds", pa.map_(pa.string(), pa.float64())),  # by stage
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Where one clip stands: a record if it succeeded, a reason if it failed."""

    state: State
    record: ClipRecord | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if (self.state == "SUCCEEDED") != (self.record is not None):
            raise ValueError(f"state {self.state} with{'out' if self.record is None else ''} a record")


PENDING = Outcome(state="PENDING")


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What `run.json` says beyond the clips' states."""

    run_id: str
    manifest: str
    output: str
    model: str
    model_hash: str
    started_at: datetime
    ended_at: datetime | None  # None: it is running, or was killed
    settings: JsonDict  # the whole configuration as it was composed
    versions: Mapping[str, str]


def results_table(manifest: Manifest, outcomes: Mapping[str, Outcome]) -> pa.Table:
    """The manifest's table with our columns behind its own; clips without an outcome are PENDING."""
    prefix = free_prefix(manifest.table.column_names)
    rows = [_row(clip, outcomes.get(clip.clip_id, PENDING)) for clip in manifest.clips]
    table = manifest.table
    for own in FIELDS:
        column = pa.array([row[own.name] for row in rows], type=own.type)
        table = table.append_column(own.with_name(prefix + own.name), column)
    return table.replace_schema_metadata({**(table.schema.metadata or {}), PREFIX_KEY: prefix.encode()})


def free_prefix(columns: Sequence[str]) -> str:
    """The first of `render_`, `render2_`, ... that no column begins with."""
    for number in itertools.count(1):
        prefix = f"render{number if number > 1 else ''}_"
        if not any(name.startswith(prefix) for name in columns):
            return prefix
    raise AssertionError("numbers do not end")


def write_results(store: Store, manifest: Manifest, outcomes: Mapping[str, Outcome]) -> None:
    buffer = io.BytesIO()
    pq.write_table(results_table(manifest, outcomes), buffer, compression="zstd")
    store.put(RESULTS, buffer.getvalue())


def write_run(store: Store, facts: RunFacts, *, clips: Sequence[Clip], outcomes: Mapping[str, Outcome]) -> None:
    """Counts by state (all five, zeros too) and every failed clip with its reason."""
    states = Counter(outcomes.get(clip.clip_id, PENDING).state for clip in clips)
    failures = {
        clip.clip_id: outcomes[clip.clip_id].error
        for clip in clips
        if outcomes.get(clip.clip_id, PENDING).state == "FAILED"
    }
    values = {
        **asdict(facts),
        "started_at": _utc(facts.started_at),
        "ended_at": _utc(facts.ended_at),
        "written_at": _utc(datetime.now(UTC)),
        "num_clips": len(clips),
        "states": {state: states[state] for state in ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELED")},
        "failures": failures,
    }
    store.put(RUN, json.dumps(values, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n")


def _row(clip: Clip, outcome: Outcome) -> dict[str, Any]:
    record = outcome.record
    files = record.finished.files if record else {}
    names = {kind: file.name for kind, file in files.items()}
    return {
        "clip_id": clip.clip_id,
        "state": outcome.state,
        "error": outcome.error,
        "mp4": names.get("mp4"),
        "wav": names.get("wav"),
        "poster": names.get("jpg"),
        "record": record.key if record else None,
        "seed": clip.seed,
        "resolution": clip.resolution,
        "ratio": clip.ratio,
        "duration": clip.duration_s,
        "width": clip.shape.width,
        "height": clip.shape.height,
        "num_frames": clip.shape.num_frames,
        "attempt": record.finished.attempt if record else None,
        "num_attempts": record.num_attempts if record else None,
        "seconds": dict(record.seconds) if record else None,
    }


def _utc(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment else None
