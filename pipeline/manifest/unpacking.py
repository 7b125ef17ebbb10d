"""What a Parquet file unpacks to: rows that may be read at a time, and files of which that is beyond all bounds.

A dictionary or a good compression keeps gigabytes in a few hundred bytes. The footer says sizes as they are written, so
that a value of a megabyte that stands in every row counts once there; here it is looked for.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.counting import counted
from pipeline.errors import Finding, ManifestError
from pipeline.manifest.cells import COLUMNS
from pipeline.manifest.parquet_footer import Chunk

MAX_ROWS = 10_000_000  # of a manifest; each takes some seventy bytes of memory, and seconds of a GPU
MAX_PACKING = 500  # times smaller than what it holds; counts above FREE_BYTES only
FREE_BYTES = 256 << 20
MAX_TEXT_BYTES = 256 << 10  # of a text column of ours: ten times of what is allowed
BATCH_BYTES = 16 << 20  # of one column
VALUE_BYTES = 8

Open = Callable[[Sequence[str]], pq.ParquetFile]  # reads these columns as dictionaries


def check_packing(groups: Iterable[Iterable[Chunk]], where: str) -> None:
    """ManifestError for a column that is too many times larger than its bytes in the file."""
    for chunk in chain.from_iterable(groups):
        size = max(chunk.coded_bytes, chunk.num_values * VALUE_BYTES)
        if size > FREE_BYTES and size > MAX_PACKING * max(chunk.packed_bytes, 1):
            got = f"{size / 1e6:.0f} MB in {chunk.packed_bytes} bytes"
            expected = f"at most {MAX_PACKING} times of what is in the file, above {FREE_BYTES >> 20} MiB"
            raise ManifestError(where, [Finding(-1, chunk.path.partition(".")[0], got, expected)])


def check_rows(num_rows: int, where: str) -> None:
    if num_rows > MAX_ROWS:
        expected = f"at most {MAX_ROWS}; render its files one after another"
        raise ManifestError(where, [Finding(-1, "", f"{counted(num_rows, 'row')}", expected)])


def safe_rows(
    size: int, open_file: Open, chunks: Iterable[Chunk], *, group: int, columns: Collection[str], where: str
) -> int:
    """At most `size` rows at a time of one row group, fewer where these columns unpack to more than BATCH_BYTES.

    ManifestError where a text of ours is longer than any could be.
    """
    for chunk in chunks:
        path = chunk.path
        name = next((each for each in columns if path == each or path.startswith(f"{each}.")), None)
        # Without a dictionary or deltas the footer's size is that of all values.
        may_grow = chunk.is_bytes and (chunk.has_dictionary or chunk.has_deltas)
        if name is None or not may_grow or chunk.coded_bytes * size <= FREE_BYTES:
            continue
        longest = chunk.coded_bytes if chunk.has_deltas else _longest(open_file([path]), group, path)
        if COLUMNS.get(name) == "text" and longest > MAX_TEXT_BYTES:
            expected = f"texts of at most {MAX_TEXT_BYTES >> 10} KiB"
            raise ManifestError(where, [Finding(-1, name, f"one that unpacks to {longest} bytes", expected)])
        size = min(size, max(1, BATCH_BYTES // max(longest, 1)))
    return size


def _longest(reader: pq.ParquetFile, group: int, path: str) -> int:
    """Bytes of the longest value in a column's dictionary, which its first row brings along whole."""
    with reader:
        batch = next(reader.iter_batches(1, row_groups=[group], columns=[path], use_threads=False), None)
    if batch is None:
        return 0
    found = (pc.max(pc.binary_length(each)).as_py() for column in batch.columns for each in _dictionaries(column))
    return max((length for length in found if length is not None), default=0)


def _dictionaries(column: pa.Array) -> Iterator[pa.Array]:
    if pa.types.is_dictionary(column.type):
        yield column.dictionary
    elif pa.types.is_struct(column.type):
        for number in range(column.type.num_fields):
            yield from _dictionaries(column.field(number))
    elif pa.types.is_nested(column.type):
        yield from _dictionaries(column.values)
