"""What a run leaves for readers: `results.parquet`, a row for each clip, and `run.json`. Rewritten whole each time.

The manifest's columns come back unchanged; ours are named `render_...`, or `render2_...` where the manifest has such
columns (it is the results of an earlier run). The prefix in use is in the schema's metadata, under `happyhorse.prefix`.
"""

import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger import ClipRecord
from pipeline.manifest.index import RowIndex
from pipeline.manifest.reading import Manifest
from pipeline.manifest.tables import PREFIX_KEY, RESULTS
from pipeline.store import Store
from pipeline.types import JsonDict, State

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


def results_batches(manifest: Manifest, outcomes: Mapping[str, Outcome]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The manifest's rows with our columns behind their own; clips without an outcome are PENDING."""
    theirs = manifest.source.schema
    prefix = free_prefix(theirs.names)
    metadata = {**(theirs.metadata or {}), PREFIX_KEY: prefix.encode()}
    schema = pa.schema([*theirs, *(own.with_name(prefix + own.name) for own in FIELDS)], metadata=metadata)
    return schema, (
        pa.RecordBatch.from_arrays([*data.columns, *_columns(manifest.index, positions, outcomes)], schema=schema)
        for positions, data in manifest.batches()
    )


def free_prefix(columns: Sequence[str]) -> str:
    """The first of `render_`, `render2_`, ... that no column begins with."""
    for number in itertools.count(1):
        prefix = f"render{number if number > 1 else ''}_"
        if not any(name.startswith(prefix) for name in columns):
            return prefix
    raise AssertionError("numbers do not end")


def write_results(store: Store, manifest: Manifest, outcomes: Mapping[str, Outcome]) -> None:
    """Streamed from the manifest's files again, through a temporary file. StoreError if those have changed."""
    schema, batches = results_batches(manifest, outcomes)
    with tempfile.TemporaryDirectory(prefix="happyhorse-") as folder:
        file = Path(folder) / RESULTS
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
        store.put_file(RESULTS, file)


def write_run(store: Store, facts: RunFacts, *, num_clips: int, outcomes: Mapping[str, Outcome]) -> None:
    """Counts by state (all five, zeros too) and every failed clip with its reason."""
    states = Counter(outcome.state for outcome in outcomes.values())
    states["PENDING"] += num_clips - len(outcomes)
    failures = {clip_id: outcome.error for clip_id, outcome in outcomes.items() if outcome.state == "FAILED"}
    values = {
        **asdict(facts),
        "started_at": _utc(facts.started_at),
        "ended_at": _utc(facts.ended_at),
        "written_at": _utc(datetime.now(UTC)),
        "num_clips": num_clips,
        "states": {state: states[state] for state in ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELED")},
        "failures": failures,
    }
    store.put(RUN, json.dumps(values, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n")


def read_run(store: Store) -> JsonDict | None:
    """What the last run wrote of itself; None if there is nothing that can be read as that."""
    if store.head(RUN) is None:
        return None
    try:
        values = json.loads(store.get(RUN))
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _columns(index: RowIndex, positions: range, outcomes: Mapping[str, Outcome]) -> list[pa.Array]:
    rows = [_row(index, position, outcomes) for position in positions]
    return [pa.array([row[own.name] for row in rows], own.type) for own in FIELDS]


def _row(index: RowIndex, position: int, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    clip_id, size = index.clip_id(position), index.sizes[index.size_codes[position]]
    outcome = outcomes.get(clip_id, PENDING)
    record = outcome.record
    names = {kind: file.name for kind, file in record.finished.files.items()} if record else {}
    return {
        "clip_id": clip_id,
        "state": outcome.state,
        "error": outcome.error,
        "mp4": names.get("mp4"),
        "wav": names.get("wav"),
        "poster": names.get("jpg"),
        "record": record.key if record else None,
        "seed": int(index.seeds[position]),
        "resolution": size.resolution,
        "ratio": size.ratio,
        "duration": size.duration_s,
        "width": size.shape.width,
        "height": size.shape.height,
        "num_frames": size.shape.num_frames,
        "attempt": record.finished.attempt if record else None,
        "num_attempts": record.num_attempts if record else None,
        "seconds": dict(record.seconds) if record else None,
    }


def _utc(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment else None
