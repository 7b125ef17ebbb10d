"""Small files that unpack to gigabytes: refused by their footers, or read a few rows at a time."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.convert.conversion import Conversion, convert
from pipeline.manifest import unpacking
from tests.manifests import MODEL, STORAGE, count_words, findings, read, write

ROOT = Path(__file__).parents[3]
MB = 1 << 20
MOST_MB = 250  # of memory for all of them together; each of them would be gigabytes
ONE_BY_ONE = """
import json, resource, sys
from pipeline.errors import ManifestError
from tests.manifests import read, table_of
def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
read(sys.argv[1])
base_mb = peak_mb()
for path in sys.argv[1:]:
    try:
        said = sum(batch.num_rows for _, batch in read(path).batches())
    except ManifestError as error:
        said = str(error.findings[0])
    print(json.dumps([said, peak_mb() - base_mb]))
"""


def repeated(value: Any, number: int, kind: pa.DataType | None = None) -> pa.Array:
    indices = pa.array(np.zeros(number, np.int8))
    return pa.DictionaryArray.from_arrays(indices, pa.array([value], kind or pa.string()))


def bomb(folder: Path, name: str, columns: dict[str, Any], **options: Any) -> Path:
    settings: dict[str, Any] = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30}
    pq.write_table(pa.table(columns), folder / f"{name}.parquet", **settings | options)
    return folder / f"{name}.parquet"


def many_rows(folder: Path) -> Path:
    column = repeated("a cat", 5_000_000)
    with pq.ParquetWriter(folder / "rows.parquet", pa.schema([("prompt", column.type)])) as writer:
        for _ in range(4):
            writer.write_table(pa.table({"prompt": column}), row_group_size=5_000_000)
    return folder / "rows.parquet"


def lists(folder: Path) -> Path:
    items = repeated("x", 60_000_000)
    column = pa.ListArray.from_arrays(pa.array([0, len(items)], pa.int32()), items)
    return bomb(folder, "lists", {"prompt": ["a cat"], "list": column})


def deltas(folder: Path) -> Path:
    note = ["x" * MB] * 600
    options: dict[str, Any] = {"use_dictionary": ["prompt"], "column_encoding": {"note": "DELTA_BYTE_ARRAY"}}
    return bomb(folder, "deltas", {"prompt": repeated("a cat", 600), "note": note}, **options)


BOMBS: dict[str, tuple[Callable[[Path], Path], object]] = {
    "rows": (many_rows, "got 20000000 rows, expected at most 10000000; render its files one after another"),
    "texts": (
        lambda folder: bomb(folder, "texts", {"prompt": repeated("x" * MB, 5000)}),
        "column prompt: got one that unpacks to 1048576 bytes, expected texts of at most 256 KiB",
    ),
    "page": (
        lambda folder: bomb(folder, "page", {"prompt": ["x" * (300 * MB)]}),
        "column prompt: got 315 MB in ",
    ),
    "lists": (lists, "column list: got 480 MB in "),
    "notes": (
        lambda folder: bomb(folder, "notes", {"prompt": repeated("a cat", 2000), "note": repeated("x" * MB, 2000)}),
        2000,
    ),
    "nested": (
        lambda folder: bomb(
            folder,
            "nested",
            {"prompt": repeated("a cat", 2000), "note": pa.StructArray.from_arrays([repeated("x" * MB, 2000)], ["n"])},
        ),
        2000,
    ),
    "deltas": (deltas, 600),
}


@pytest.mark.slow
def test_bombs_are_refused_or_read_in_little_memory(tmp_path: Path) -> None:
    good = write(tmp_path, {"prompt": ["a cat"]})
    paths = [make(tmp_path) for make, _ in BOMBS.values()]
    assert sum(os.path.getsize(path) for path in paths) < 2 * MB
    done = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, str(good), *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, *said = [json.loads(line) for line in done.stdout.splitlines()]
    for (name, (_, expected)), (got, grown_mb) in zip(BOMBS.items(), said, strict=True):
        assert got == expected or (isinstance(got, str) and got.startswith(str(expected))), (name, got)
        assert grown_mb < MOST_MB, (name, grown_mb)


def test_ordinary_dictionaries_are_read_in_large_batches(tmp_path: Path) -> None:
    prompts = [f"prompt number {n % 1000}" for n in range(20_000)]
    path = write(tmp_path, {"prompt": prompts, "note": prompts})
    assert [batch.data.num_rows for batch in read(path).source.batches()] == [8192, 8192, 3616]


def test_long_values_are_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    path = bomb(tmp_path, "notes", {"prompt": repeated("a cat", 50), "note": repeated("x" * (2 * MB), 50)})
    assert {batch.data.num_rows for batch in read(path).source.batches()} <= {8, 2}


def test_a_converter_takes_them_too(tmp_path: Path) -> None:
    path = bomb(tmp_path, "notes", {"prompt": repeated("a cat", 30), "note": repeated("x" * (2 * MB), 30)})
    conversion = Conversion(
        source=str(path),
        target=str(tmp_path / "rows.jsonl"),
        storage=STORAGE,
        model=MODEL,
        count_tokens=count_words,
    )
    assert convert(conversion) == 30


def test_the_largest_number_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_ROWS", 3)
    assert len(read(write(tmp_path, {"prompt": ["x"] * 3}))) == 3
    assert findings(write(tmp_path, {"prompt": ["x"] * 4})) == [
        "got 4 rows, expected at most 3; render its files one after another"
    ]
