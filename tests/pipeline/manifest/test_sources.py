"""Which files an address names, what their folders' names say, and rows read from them again."""

import itertools
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ManifestError, StoreError
from pipeline.manifest.sources import from_anywhere
from pipeline.manifest.tables import RowFinder, open_source
from pipeline.store import open_store
from tests.manifests import STORAGE, findings, picture, read, table_of, write


def prompts(address: Path | str) -> list[str]:
    return [clip.prompt for clip in read(address).clips]


def put(path: Path, columns: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path.parent, columns, path.name)


def test_several_sources_with_commas_between(tmp_path: Path) -> None:
    first = put(tmp_path / "a.parquet", {"prompt": ["a"]})
    put(tmp_path / "more" / "b.parquet", {"prompt": ["b"]})
    assert prompts(f"{first}, {tmp_path}/more") == ["a", "b"]
    assert prompts(f"{tmp_path}/more,{tmp_path}/[a].parquet") == ["b", "a"]
    (line,) = findings(f"{first},{tmp_path}/gone.parquet")
    assert line.startswith("got no such file")


def test_a_file_with_a_comma_in_its_name_wins(tmp_path: Path) -> None:
    put(tmp_path / "a" / "c.parquet", {"prompt": ["wrong"]})
    both = put(tmp_path / "a,b.parquet", {"prompt": ["right"]})
    assert prompts(both) == ["right"]
    assert prompts(f"{tmp_path}/a?b.parquet,{tmp_path}/a") == ["right", "wrong"]


@pytest.mark.parametrize("address", ["m.parquet", "more", "more/*.parquet", "m.parquet, more/b.parquet", "a,b.parquet"])
def test_an_address_that_was_written_down_leads_to_the_same_files_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    for name in ("m.parquet", "more/b.parquet", "a,b.parquet"):
        put(tmp_path / name, {"prompt": [name]})
    monkeypatch.chdir(tmp_path)
    here = prompts(address)
    written = from_anywhere(address, storage=STORAGE)
    monkeypatch.chdir("/")
    assert prompts(written) == here


def test_an_address_in_a_bucket_is_the_same_everywhere() -> None:
    assert from_anywhere("s3://studio/a/*.parquet", storage=STORAGE) == "s3://studio/a/*.parquet"


def test_relative_images_are_below_their_own_files_folder(tmp_path: Path) -> None:
    sources = []
    for name, width in (("one", 300), ("two", 500)):
        sources.append(str(put(tmp_path / name / "m.parquet", {"prompt": [name], "image": ["a.png"]}).parent))
        (tmp_path / name / "a.png").write_bytes(picture(width, 400))
    images = [clip.image for clip in read(",".join(sources)).clips]
    assert [image.width for image in images if image] == [300, 500]


def test_folders_of_a_hive_are_columns(tmp_path: Path) -> None:
    root = tmp_path / "in"
    put(root / "day=2026-11-20" / "resolution=128P" / "duration=4" / "a.parquet", {"prompt": ["a"], "n": [1]})
    put(root / "day=2026-11-21" / "resolution=64P" / "duration=5" / "b c.parquet", {"prompt": ["b"], "n": [2]})
    put(root / "day=__HIVE_DEFAULT_PARTITION__" / "resolution=64P" / "duration=3" / "c.parquet", {"prompt": ["c"]})
    manifest = read(root)
    assert [(clip.resolution, clip.duration_s) for clip in manifest.clips] == [("128P", 4), ("64P", 5), ("64P", 3)]
    assert table_of(manifest).select(["n", "day"]).to_pylist() == [
        {"n": 1, "day": "2026-11-20"},
        {"n": 2, "day": "2026-11-21"},
        {"n": None, "day": None},
    ]
    assert manifest.row(manifest.clips[0])["day"] == "2026-11-20"
    assert prompts(f"{root}/day=2026-11-2?/*/*/*.parquet") == ["a", "b"]
    assert prompts(f"{root}/day=2026-11-20") == ["a"], "a folder that is named itself is no column"
    assert prompts(f"{root}/*=2026-11-21") == ["b"]


@pytest.mark.parametrize(
    ("names", "values", "kind"),
    [
        (["n=1", "n=-20"], [1, -20], pa.int64()),
        (["n=1", "n=x"], ["1", "x"], pa.string()),
        (["n=007", "n=8"], ["007", "8"], pa.string()),
        (["n=a%2Fb", "n=%E7%BA%A2"], ["a/b", "红"], pa.string()),
        (["clip_id=1", "clip_id=2"], ["1", "2"], pa.string()),
        (["audio=true", "audio=false"], [True, False], pa.bool_()),
        (["prompt=x", "prompt=y"], ["p0", "p1"], pa.string()),
    ],
)
def test_what_type_a_folders_name_has(tmp_path: Path, names: list[str], values: list[Any], kind: pa.DataType) -> None:
    for number, name in enumerate(names):
        put(tmp_path / "in" / name / f"{number}.parquet", {"prompt": [f"p{number}"]})
    table = table_of(read(tmp_path / "in")).sort_by("prompt")
    (column,) = {name.partition("=")[0] for name in names}
    assert (table[column].to_pylist(), table.schema.field(column).type) == (values, kind)


@pytest.mark.parametrize("scheme", ["moto", pytest.param("swift", marks=pytest.mark.s3)])
def test_a_hive_in_a_bucket_beside_a_file_on_disk(tmp_path: Path, request: pytest.FixtureRequest, scheme: str) -> None:
    bucket: str = request.getfixturevalue(f"{scheme}_s3")
    store = open_store(f"{bucket}/in put")
    for day in (1, 2):
        rows = write(tmp_path, {"prompt": [f"{day} {n}" for n in range(3000)], "note": ["x" * 50] * 3000})
        store.put_file(f"day={day}/part.parquet", rows)
    disk = put(tmp_path / "disk.parquet", {"prompt": ["b"], "day": [3]})
    manifest = read(f"{bucket}/in put,{disk}")
    assert len(manifest) == 6001
    assert table_of(manifest)["day"].to_pylist() == [1] * 3000 + [2] * 3000 + [3]
    assert [manifest.clip(position).prompt for position in (5999, 0, 6000)] == ["2 2999", "1 0", "b"]
    assert [clip.prompt for clip in read(f"{bucket}/in put/day=*/*.parquet").clips[::3000]] == ["1 0", "2 0"]


def rows_in_groups(folder: Path, num_rows: int, group: int) -> Path:
    table = pa.table({"prompt": [f"p{n}" for n in range(num_rows)], "n": range(num_rows)})
    pq.write_table(table, folder / "m.parquet", row_group_size=group)
    return folder / "m.parquet"


def test_rows_are_found_again_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.manifest.tables.BATCH_ROWS", 7)
    put(tmp_path / "in" / "z.parquet", {"prompt": ["z"], "n": [100]})
    (tmp_path / "in").joinpath("m.parquet").write_bytes(rows_in_groups(tmp_path, 100, 30).read_bytes())
    manifest = read(tmp_path / "in")
    order = list(range(101))
    random.Random(0).shuffle(order)
    expected = [f"p{n}" if n < 100 else "z" for n in order]
    assert [manifest.clip(position).prompt for position in order] == expected
    assert [manifest.clips[position].prompt for position in order] == expected
    assert [clip.prompt for clip in manifest.load(order)] == expected
    assert [clip.prompt for clip in manifest.clips[10:40:3]] == [f"p{n}" for n in range(10, 40, 3)]
    assert [clip.prompt for clip in manifest.clips[::-50]] == ["z", "p50", "p0"]
    finder = RowFinder(manifest.source, ["n"])
    for row in order:
        batch = finder.find(row)
        assert batch.data["n"][row - batch.first_row].as_py() == row
    firsts = [batch.first_row for batch in manifest.source.batches(start=65)]
    assert (firsts[0], firsts[-1]) == (60, 100), "from its row group on"


def test_rows_that_hold_much_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.manifest.tables.BATCH_BYTES", 100_000)
    blobs = [random.Random(n).randbytes(20_000) for n in range(50)]
    source = open_source(str(write(tmp_path, {"prompt": ["a"] * 50, "blob": blobs})), storage=STORAGE)
    sizes = [batch.data.num_rows for batch in source.batches()]
    assert (sum(sizes), max(sizes) <= 5) == (50, True)


def test_a_manifest_that_changes_while_it_is_used_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": ["a", "b"]})
    manifest = read(path)
    write(tmp_path, {"prompt": ["a", "c"]})
    with pytest.raises(StoreError, match=r"row 1 of .* has changed since it was read"):
        list(manifest.clips)
    write(tmp_path, {"prompt": ["a", "b", "c"]})
    with pytest.raises(StoreError, match=r"m\.parquet has changed since it was read"):
        table_of(manifest)
    path.unlink()
    with pytest.raises(StoreError, match=r"cannot read .*m\.parquet: No such file"):
        table_of(manifest)


def test_a_file_that_is_damaged_inside_is_found_out(tmp_path: Path) -> None:
    path = rows_in_groups(tmp_path, 20_000, 1000)
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    path.write_bytes(data)
    with pytest.raises(ManifestError, match=r"bytes that are not Parquet"):
        read(path)


def test_batches_cover_every_row_once(tmp_path: Path) -> None:
    for number, rows in enumerate((5, 0, 3)):
        put(tmp_path / "in" / f"{number}.parquet", {"prompt": pa.array([f"p{n}" for n in range(rows)], pa.string())})
    source = open_source(str(tmp_path / "in"), storage=STORAGE)
    batches = list(source.batches(["prompt"]))
    assert all(one.end == other.first_row for one, other in itertools.pairwise(batches))
    assert (batches[0].first_row, batches[-1].end, source.num_rows) == (0, 8, 8)
