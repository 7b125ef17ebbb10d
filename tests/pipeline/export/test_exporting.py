"""Exports between disks and buckets: every file as recorded, an index, nothing twice, nothing damaged passed on."""

import csv
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.export.exporting import Exported, ExportSettings, export_clips
from pipeline.store import Store, open_store
from tests.clips import make_clip
from tests.pipeline.export.outputs import content, deliver, rendered

COLUMNS: dict[str, Any] = {
    "prompt": ["one", 'two,\n"quoted"', "三"],
    "clip_id": ["a", "b", "c"],
    "audio": [True, False, True],
    "shot": [1, 2, 3],
    "export_mp4": ["theirs"] * 3,
    "when": pa.array([1, None, 3], pa.timestamp("ns", "Asia/Shanghai")),
    "deep": [[1], [], None],
}
NAMES = ["a.jpg", "a.mp4", "a.wav", "b.jpg", "b.mp4", "c.jpg", "c.mp4", "c.wav"]
INDEX = ["index.csv", "index.parquet"]
WAYS = [("moto", "to"), ("moto", "from"), ("moto", "within"), pytest.param("swift", "within", marks=pytest.mark.s3)]


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return filled(open_store(str(tmp_path / "out")), tmp_path)


def filled(store: Store, folder: Path, **changes: Any) -> Store:
    rendered(store, folder, COLUMNS | changes)
    return store


def names(store: Store) -> list[str]:
    return sorted(each.key for each in store.list())


def export(source: Store, target: Store, **settings: Any) -> Exported:
    return export_clips(source, target, ExportSettings(**settings))


def index_of(store: Store) -> pa.Table:
    return pq.read_table(pa.BufferReader(store.get("index.parquet")))


def is_whole(store: Store) -> None:
    assert names(store) == sorted([*NAMES, *INDEX])
    for name in NAMES:
        assert store.get(name) == content(*name.split("."))


def test_from_disk_to_disk_files_are_linked(output: Store, tmp_path: Path) -> None:
    target = open_store(str(tmp_path / "to" / "here"))
    exported = export(output, target)
    assert (exported.num_clips, exported.files, exported.findings) == (3, {"linked": 8}, ())
    is_whole(target)
    assert (tmp_path / "to" / "here" / "a.mp4").samefile(tmp_path / "out" / "clips" / "a.0a1b2c3d.mp4")


def test_copies_are_files_of_their_own(output: Store, tmp_path: Path) -> None:
    target = open_store(str(tmp_path / "to"))
    assert export(output, target, how="copy").files == {"copied": 8}
    is_whole(target)
    assert (tmp_path / "to" / "a.mp4").stat().st_nlink == 1


def test_where_disks_differ_files_are_copied(output: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another disk answers; there is only one here."""

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    target = open_store(str(tmp_path / "to"))
    assert export(output, target).files == {"copied": 8}
    is_whole(target)
    exported = export(output, open_store(str(tmp_path / "other")), how="link")
    assert (exported.files, len(exported.findings)) == ({}, 8)
    assert "cannot be linked" in exported.findings[0]


@pytest.mark.parametrize(("server", "way"), WAYS)
def test_to_and_from_buckets(server: str, way: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    bucket = open_store(f"{request.getfixturevalue(f'{server}_s3')}/some prefix")
    disk, other = open_store(str(tmp_path / "place")), open_store(f"{bucket.uri} beside it")
    source, target = {"to": (disk, bucket), "from": (bucket, disk), "within": (bucket, other)}[way]
    filled(source, tmp_path)
    assert export(source, target).files == {"copied": 8}
    is_whole(target)
    assert export(source, target).files == {"there": 8}


def test_the_index_has_the_columns_of_results_and_where_each_file_is(output: Store, tmp_path: Path) -> None:
    target = open_store(str(tmp_path / "to"))
    export(output, target, kinds=("mp4", "wav"), name="{shot:03}.{kind}")
    rows = index_of(target).to_pylist()
    assert [row["export2_mp4"] for row in rows] == ["001.mp4", "002.mp4", "003.mp4"]
    assert [row["export2_wav"] for row in rows] == ["001.wav", None, "003.wav"]
    assert [row["export_mp4"] for row in rows] == ["theirs"] * 3
    assert [row["prompt"] for row in rows] == COLUMNS["prompt"]
    assert rows[0]["render_clip_id"] == "a"
    assert rows[0]["when"].startswith("1970-01-01 08:00:00.000000001")
    assert "deep" not in rows[0]
    for row in rows:
        data = target.get(row["export2_mp4"])
        assert (row["export2_mp4_bytes"], row["export2_mp4_sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_csv_says_the_same(output: Store, tmp_path: Path) -> None:
    target = open_store(str(tmp_path / "to"))
    export(output, target)
    table = list(csv.DictReader(io.StringIO(target.get("index.csv").decode(), newline="")))
    parquet = index_of(target)
    assert list(table[0]) == parquet.column_names
    assert [row["prompt"] for row in table] == COLUMNS["prompt"]
    assert [row["audio"] for row in table] == ["true", "false", "true"]
    assert [row["export2_wav"] for row in table] == ["a.wav", "", "c.wav"]
    assert [row["shot"] for row in table] == ["1", "2", "3"]


def test_unfinished_clips_and_superseded_records_stay_out(tmp_path: Path) -> None:
    source, target = open_store(str(tmp_path / "out")), open_store(str(tmp_path / "to"))
    rendered(source, tmp_path, COLUMNS, unfinished=("b",))
    deliver(source, make_clip("a"), say="older", settings_hash="e" * 16, attempt="11111111")
    deliver(source, make_clip("z"))
    exported = export(source, target)
    assert (exported.num_clips, exported.num_unfinished, exported.files) == (2, 1, {"linked": 6})
    assert target.get("a.mp4") == content("a", "mp4")
    assert target.head("z.mp4") is None


def test_every_record_can_be_asked_for(tmp_path: Path) -> None:
    source, target = open_store(str(tmp_path / "out")), open_store(str(tmp_path / "to"))
    for settings_hash, attempt in (("e" * 16, "11111111"), ("f" * 16, "22222222")):
        deliver(source, make_clip("a"), say=attempt, settings_hash=settings_hash, attempt=attempt, row={"shot": 5})
    with pytest.raises(ConfigError, match=r"results\.parquet is not there; all=true"):
        export(source, target)
    with pytest.raises(ConfigError, match=r"a\.mp4 is the name of clip a \(mp4\) and of clip a \(mp4\)"):
        export(source, target, all=True, kinds=("mp4",))
    assert export(source, target, all=True, kinds=("mp4",), name="{shot}.{attempt}.{kind}").files == {"linked": 2}
    assert names(target) == ["5.11111111.mp4", "5.22222222.mp4", *INDEX]
    assert index_of(target)["row"].to_pylist() == ['{"shot": 5}'] * 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "same.{kind}"}, r"same\.mp4 is the name of clip a \(mp4\) and of clip b \(mp4\)"),
        ({"name": "{when}.{kind}"}, "clip b: column when is empty"),
        ({"name": "../{clip_id}.{kind}"}, "is not a safe name"),
        ({"name": "/{clip_id}.{kind}"}, "is not a safe name"),
        ({"name": "{shoot}.{kind}"}, "no column shoot, there are prompt, "),
        ({"name": "{deep}.{kind}"}, "column deep holds list<"),
        ({"kinds": ()}, "expected some of mp4, wav and jpg"),
    ],
)
def test_a_bad_name_is_refused_before_anything_is_written(
    output: Store, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    target = open_store(str(tmp_path / "to"))
    with pytest.raises(ConfigError, match=said):
        export(output, target, **settings)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("place", ["", "/export"])
def test_an_output_is_not_exported_into_itself(output: Store, place: str) -> None:
    with pytest.raises(ConfigError, match="lies in the output"):
        export(output, open_store(output.uri + place))


def test_running_again_adds_what_is_missing(output: Store, tmp_path: Path) -> None:
    target = open_store(str(tmp_path / "to"))
    export(output, target)
    target.delete("b.mp4")
    before = {name: (tmp_path / "to" / name).stat().st_mtime_ns for name in NAMES if name != "b.mp4"}
    assert export(output, target).files == {"linked": 1, "there": 7}
    assert before == {name: (tmp_path / "to" / name).stat().st_mtime_ns for name in before}
    is_whole(target)


def other_bytes(store: Store, name: str) -> None:
    data = bytearray(store.get(name))
    data[5] ^= 1
    store.put(name, bytes(data))


@pytest.mark.parametrize("change", [other_bytes, lambda store, name: store.put(name, b"short")])
def test_other_content_under_a_name_is_found_and_kept_unless_told(
    output: Store, tmp_path: Path, change: Callable[[Store, str], object]
) -> None:
    target = open_store(str(tmp_path / "to"))
    export(output, target, how="copy")
    change(target, "b.mp4")
    changed = target.get("b.mp4")
    exported = export(output, target)
    assert exported.files == {"there": 7}
    (finding,) = exported.findings
    assert finding.startswith("clip b: b.mp4: is there with other content")
    assert target.get("b.mp4") == changed
    assert index_of(target)["export2_mp4"].to_pylist() == ["a.mp4", None, "c.mp4"]
    assert export(output, target, replace=True).findings == ()
    is_whole(target)


def test_sizes_alone_are_looked_at_when_asked(output: Store, tmp_path: Path) -> None:
    target = open_store(str(tmp_path / "to"))
    export(output, target, how="copy")
    other_bytes(target, "b.mp4")
    assert export(output, target, check="size").findings == ()


def record_of(store: Store, clip_id: str) -> str:
    """The key of a clip's only record."""
    (key,) = [each.key for each in store.list("records") if each.key.startswith(f"records/{clip_id}.")]
    return key


MP4 = "clips/b.0a1b2c3d.mp4"
DAMAGE: dict[str, tuple[Callable[[Store], object], str]] = {
    "gone": (lambda store: store.delete(MP4), "got no such file"),
    "cut": (lambda store: store.put(MP4, b"x"), "got 1 bytes, expected"),
    "altered": (lambda store: other_bytes(store, MP4), "got sha256"),
    "no record": (lambda store: store.delete(record_of(store, "b")), "got no such record"),
    "bad record": (lambda store: store.put(record_of(store, "b"), b"{"), "is not a record"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("how", ["link", "copy"])
def test_a_damaged_clip_is_left_out_and_the_others_are_not(
    output: Store, tmp_path: Path, how: str, damage: Callable[[Store], object], said: str
) -> None:
    damage(output)
    target = open_store(str(tmp_path / "to"))
    exported = export(output, target, how=how)
    (finding,) = exported.findings
    assert finding.startswith("clip b: ")
    assert said in finding
    assert target.head("b.mp4") is None
    assert target.get("c.mp4") == content("c", "mp4")
    assert not [path for path in (tmp_path / "to").rglob("*") if "#" in path.name]


def test_damage_does_not_reach_a_bucket(output: Store, moto_s3: str) -> None:
    other_bytes(output, MP4)
    target = open_store(moto_s3)
    assert "got sha256" in export(output, target).findings[0]
    assert target.head("b.mp4") is None


def test_a_place_with_another_outputs_index_is_refused(output: Store, tmp_path: Path) -> None:
    target = open_store(str(tmp_path / "to"))
    export(output, target)
    (tmp_path / "second").mkdir()
    other = filled(open_store(str(tmp_path / "second" / "out")), tmp_path / "second", clip_id=["x", "y", "z"])
    with pytest.raises(ConfigError, match=r"to has an index of .*/out; expected another place"):
        export(other, target)
    assert names(target) == sorted([*NAMES, *INDEX])


def test_an_output_without_finished_clips_leaves_nothing(tmp_path: Path) -> None:
    source, target = open_store(str(tmp_path / "out")), open_store(str(tmp_path / "to"))
    rendered(source, tmp_path, COLUMNS, unfinished=("a", "b", "c"))
    assert export(source, target) == Exported(num_clips=0, num_unfinished=3, files={}, findings=())
    assert not (tmp_path / "to").exists()


def test_rows_without_a_name_of_their_own_get_their_clips_id(tmp_path: Path) -> None:
    source, target = open_store(str(tmp_path / "out")), open_store(str(tmp_path / "to"))
    rendered(source, tmp_path, {"prompt": ["one", "two"]})
    export(source, target, kinds=("mp4",))
    ids = index_of(target)["render_clip_id"].to_pylist()
    assert names(target) == sorted([*(f"{clip_id}.mp4" for clip_id in ids), *INDEX])
