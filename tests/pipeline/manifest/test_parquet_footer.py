"""What we read of a footer is what pyarrow reads of it, and a damaged one is an error."""

import io
from contextlib import suppress
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.manifest.parquet_footer import TAIL_BYTES, footer_bytes, read_chunks
from tests.fuzz.inputs import make_case, seeds
from tests.manifests import findings


def footer(data: bytes) -> bytes:
    return data[-TAIL_BYTES - footer_bytes(data[-TAIL_BYTES:]) : -TAIL_BYTES]


@pytest.mark.parametrize("number", range(len(seeds("parquet"))))
def test_sizes_are_those_that_pyarrow_reads(number: int) -> None:
    data = seeds("parquet")[number]
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    groups = read_chunks(footer(data))
    assert len(groups) == metadata.num_row_groups
    for group, chunks in enumerate(groups):
        assert len(chunks) == metadata.num_columns
        for place, chunk in enumerate(chunks):
            known = metadata.row_group(group).column(place)
            assert (chunk.path, chunk.num_values) == (known.path_in_schema, known.num_values)
            assert chunk.packed_bytes == known.total_compressed_size
            assert chunk.coded_bytes == known.total_uncompressed_size
            assert chunk.is_bytes == (known.physical_type == "BYTE_ARRAY")
            assert chunk.has_dictionary == any("DICTIONARY" in each for each in known.encodings)
            assert not chunk.has_deltas


def test_deltas_are_seen() -> None:
    buffer = io.BytesIO()
    table = pa.table({"a": ["x", "xy"]})
    pq.write_table(table, buffer, use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"})
    assert read_chunks(footer(buffer.getvalue()))[0][0].has_deltas


@given(st.binary(max_size=300))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        read_chunks(data)


def test_damage_is_read_or_refused() -> None:
    random = Random(0)
    for data in seeds("parquet"):
        whole = footer(data)
        for _ in range(500):
            at = random.randrange(len(whole))
            damaged = whole[:at] + bytes([random.randrange(256)]) + whole[at + 1 :]
            with suppress(ValueError):
                read_chunks(damaged)


def test_a_damaged_footer_is_one_finding(tmp_path: Path) -> None:
    """pyarrow 26 aborts the process where this byte says that the sizes of texts belong to a column of numbers."""
    (tmp_path / "m.parquet").write_bytes(make_case("parquet", 11, 620))
    assert findings(tmp_path / "m.parquet")
