"""What a run leaves for readers: `results.parquet`, a row for each clip, and `run.json`. Rewritten whole each time.

The manifest's columns come back unchanged; ours are named `render_...`, or `render2_...` where the manifest has such
columns (it is the results of an earlier run). The prefix in use is in the schema's metadata, under `happyhorse.prefix`.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger import record_key
from pipeline.manifest.index import RowIndex
from pipeline.manifest.reading import Manifest
from pipeline.manifest.tables import PREFIX_KEY, RESULTS, open_source
from pipeline.outcomes import Outcomes
from pipeline.publication import file_name
from pipeline.scratch import temporary_folder
from pipeline.store import StorageSettings, Store
from pipeline.summary import Snapshot
from pipeline.types import GroupStatus, JsonDict

RUN = "run.json"
FILES = {"mp4": "mp4", "wav": "wav", "poster": "jpg"}  # column -> kind of file

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


def results_batches(manifest: Manifest, outcomes: Outcomes) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The manifest's rows with our columns behind their own."""
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


def write_results(store: Store, manifest: Manifest, outcomes: Outcomes) -> None:
    """Streamed from the manifest's files again, through a temporary file. StoreError if those have changed."""
    schema, batches = results_batches(manifest, outcomes)
    with temporary_folder() as folder:
        file = folder / RESULTS
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
        store.put_file(RESULTS, file)


def result_ids(address: str, settings: StorageSettings) -> Iterator[str]:
    """The ids of all rows of results that a run has left."""
    source = open_source(address, storage=settings)
    name = (source.schema.metadata or {}).get(PREFIX_KEY, b"render_").decode() + "clip_id"
    for batch in source.batches([name]):
        yield from batch.data.column(name).to_pylist()


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What `run.json` says of the moment at which it was written; the defaults are those of a run that does nothing."""

    groups: tuple[GroupStatus, ...] = ()
    eta_s: float | None = None
    clips_per_hour: float | None = None
    paused: str | None = None  # by whom, while it lasts
    stopped: str | None = None  # why nothing new is started, or work was left

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Moment":
        return cls(
            groups=snapshot.groups,
            eta_s=snapshot.eta_s,
            clips_per_hour=snapshot.clips_per_hour,
            paused=snapshot.paused,
            stopped=snapshot.stopping,
        )


def write_run(store: Store, facts: RunFacts, outcomes: Outcomes, moment: Moment) -> None:
    """Counts by state (all five, zeros too), every failed clip with its reason, and what the run is doing."""
    values = {
        **asdict(facts),
        "started_at": _utc(facts.started_at),
        "ended_at": _utc(facts.ended_at),
        "written_at": _utc(datetime.now(UTC)),
        "num_clips": len(outcomes),
        "states": outcomes.counts(),
        **asdict(moment),
        "failures": outcomes.failures(),
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


def _columns(index: RowIndex, positions: range, outcomes: Outcomes) -> list[pa.Array]:
    """One for each of FIELDS."""
    at = slice(positions.start, positions.stop)
    ids, attempts, done = index.ids[at].to_pylist(), outcomes.attempts(at), outcomes.is_done(at)
    hashes = (f"{number:016x}" for number in index.hashes[at].tolist())
    codes, sizes = pa.array(index.size_codes[at]), index.sizes
    columns: dict[str, Any] = {
        "clip_id": ids,
        "state": outcomes.states(at),
        "error": outcomes.errors(positions),
        **{name: _names(ids, attempts, kind, outcomes.has(kind, at)) for name, kind in FILES.items()},
        "record": [record_key(*key) if is_done else None for *key, is_done in zip(ids, hashes, done, strict=True)],
        "seed": pa.array(index.seeds[at], pa.int64()),
        "resolution": pa.array([size.resolution for size in sizes], pa.string()).take(codes),
        "ratio": pa.array([size.ratio for size in sizes], pa.string()).take(codes),
        "duration": pa.array([size.duration_s for size in sizes], pa.int64()).take(codes),
        "width": pa.array([size.shape.width for size in sizes], pa.int64()).take(codes),
        "height": pa.array([size.shape.height for size in sizes], pa.int64()).take(codes),
        "num_frames": pa.array([size.shape.num_frames for size in sizes], pa.int64()).take(codes),
        "attempt": [attempt or None for attempt in attempts],
        "num_attempts": outcomes.num_attempts(at),
        "seconds": outcomes.seconds(at),
    }
    given = ((columns[own.name], own.type) for own in FIELDS)
    return [each.cast(kind) if isinstance(each, pa.Array) else pa.array(each, kind) for each, kind in given]


def _names(ids: Sequence[str], attempts: Sequence[str], kind: str, has: np.ndarray) -> list[str | None]:
    files = zip(ids, attempts, has.tolist(), strict=True)
    return [file_name(clip_id, attempt, kind) if is_there else None for clip_id, attempt, is_there in files]


def _utc(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds") if moment else None
