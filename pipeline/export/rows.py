"""Which clips are exported: the finished rows of `results.parquet`, or every record. Both stream, as often as asked."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.export.names import CLIP_ID, KIND, Pattern
from pipeline.ledger import Ledger
from pipeline.manifest.tables import PREFIX_KEY, RESULTS, open_source
from pipeline.store import Store

COLUMN_OF = {"mp4": "mp4", "wav": "wav", "jpg": "poster"}  # kind -> what results call it, behind their prefix
ONE_VALUE = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_date,
    pa.types.is_timestamp,
    pa.types.is_decimal,
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A finished clip: `values` are what names are made of, `cells` what the index says of it."""

    clip_id: str
    record: str  # its key
    kinds: tuple[str, ...]
    values: Mapping[str, Any]
    cells: Mapping[str, Any]


class Rows(Protocol):
    """Finished clips in a fixed order; `schema` is that of their cells."""

    schema: pa.Schema
    num_unfinished: int  # known once they were read

    def check(self, pattern: Pattern) -> None:
        """ConfigError for columns that are not there."""
        ...

    def __iter__(self) -> Iterator[Row]: ...


class ResultRows:
    """Of the output's last run. Columns that hold more than one value, or bytes, are left out."""

    def __init__(self, store: Store) -> None:
        if store.head(RESULTS) is None:
            raise ConfigError(f"{store.where(RESULTS)} is not there; all=true exports every record without it")
        self._source = open_source(store.where(RESULTS), storage=store.settings)
        prefix = (self._source.schema.metadata or {}).get(PREFIX_KEY)
        if prefix is None:
            raise ConfigError(f"{store.where(RESULTS)} is not what a run left")
        self._prefix = prefix.decode()
        self.schema = pa.schema([_plain(column) for column in self._source.schema if _one_value(column.type)])
        self.num_unfinished = 0

    def check(self, pattern: Pattern) -> None:
        for column in pattern.columns:
            if column in (CLIP_ID, KIND) or column in self.schema.names:
                continue
            if column in self._source.schema.names:
                kind = self._source.schema.field(column).type
                raise ConfigError(f"name={pattern.text}: column {column} holds {kind}, expected text, numbers or dates")
            raise ConfigError(f"name={pattern.text}: no column {column}, there are {', '.join(self.schema.names)}")

    def __iter__(self) -> Iterator[Row]:
        self.num_unfinished = 0
        for batch in self._source.batches(self.schema.names):
            for cells in pa.Table.from_batches([batch.data]).cast(self.schema).to_pylist():
                if cells[f"{self._prefix}state"] != "SUCCEEDED":
                    self.num_unfinished += 1
                    continue
                clip_id = cells[f"{self._prefix}clip_id"]
                yield Row(
                    clip_id=clip_id,
                    record=cells[f"{self._prefix}record"],
                    kinds=tuple(kind for kind, name in COLUMN_OF.items() if cells[f"{self._prefix}{name}"] is not None),
                    values={**cells, CLIP_ID: clip_id},
                    cells=cells,
                )


class RecordRows:
    """Of every record, superseded ones too. Their manifest rows stand in the index as JSON."""

    schema = pa.schema(
        [
            pa.field("clip_id", pa.string()),
            pa.field("settings_hash", pa.string()),
            pa.field("attempt", pa.string()),
            pa.field("seed", pa.int64()),
            pa.field("model", pa.string()),
            pa.field("row", pa.string()),
        ]
    )
    num_unfinished = 0

    def __init__(self, store: Store) -> None:
        self._ledger = Ledger(store)

    def check(self, pattern: Pattern) -> None:
        """Each record has the columns of the row that it was made from."""

    def __iter__(self) -> Iterator[Row]:
        for record in self._ledger.read_records(sorted(self._ledger.record_keys())):
            own = {
                "clip_id": record.clip_id,
                "settings_hash": record.settings_hash,
                "attempt": record.finished.attempt,
                "seed": record.seed,
                "model": record.model,
            }
            yield Row(
                clip_id=record.clip_id,
                record=record.key,
                kinds=tuple(kind for kind in COLUMN_OF if kind in record.finished.files),
                values={**record.row, **own},
                cells={**own, "row": json.dumps(record.row, ensure_ascii=False, sort_keys=True)},
            )


def _one_value(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _one_value(kind.value_type)
    return any(is_it(kind) for is_it in ONE_VALUE)


def _plain(column: pa.Field) -> pa.Field:
    """A type that Python has values for: no dictionaries, and moments to the nanosecond as text."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        kind = pa.string()
    return pa.field(column.name, kind)
