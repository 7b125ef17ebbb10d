"""Which rows of a manifest are rendered: those that a filter takes, a shard of them, the first few. Names are not.

A row's clip id and default seed come from the whole manifest, so they are the same whatever is selected.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.manifest.where import Where
from pipeline.types import JsonDict

SHARD = re.compile(r"([1-9]\d{0,8})/([1-9]\d{0,8})")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """`where`, then `shard`, then `limit`; None: all."""

    where: str | None = None  # see where.py
    shard: str | None = None  # 3/16: of each 16 rows of the manifest the third
    limit: int | None = None  # at most so many rows

    def __post_init__(self) -> None:
        self._filter, self._turn  # noqa: B018  (both raise ConfigError)
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}, expected at least 1")

    @property
    def columns(self) -> frozenset[str]:
        """Columns that the filter reads."""
        return self._filter.columns if self._filter is not None else frozenset()

    @property
    def values(self) -> JsonDict:
        """What was asked for, without what was not."""
        asked = {"where": self.where, "shard": self.shard, "limit": self.limit}
        return {name: value for name, value in asked.items() if value is not None}

    def mask(self, data: pa.RecordBatch, *, first_row: int, num_before: int) -> np.ndarray:
        """Which rows of a batch are taken, as booleans; `num_before` were taken of the batches before it."""
        taken = np.ones(data.num_rows, np.bool_)
        if self._filter is not None:
            taken &= self._filter.mask(data).to_numpy(zero_copy_only=False)
        if self._turn is not None:
            number, count = self._turn
            taken &= np.arange(first_row, first_row + data.num_rows) % count == number - 1
        if self.limit is not None:
            taken &= np.cumsum(taken) <= self.limit - num_before
        return taken

    def is_full(self, num_taken: int) -> bool:
        """Whether no later row can be taken."""
        return self.limit is not None and num_taken >= self.limit

    @cached_property
    def _filter(self) -> Where | None:
        return Where(self.where) if self.where is not None else None

    @cached_property
    def _turn(self) -> tuple[int, int] | None:
        if self.shard is None:
            return None
        match = SHARD.fullmatch(self.shard)
        if match is None or int(match[1]) > int(match[2]):
            raise ConfigError(f"shard is {self.shard!r}, expected NUMBER/COUNT such as 3/16, the first is 1/16")
        return int(match[1]), int(match[2])


EVERYTHING = Selection()
