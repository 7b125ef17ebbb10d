"""The door to storage: the same verbs and the same answers, on disk and in buckets; objects whole or not at all."""

import errno
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import durable
from pipeline.errors import ConfigError, StoreError
from pipeline.store import StorageSettings, Store, key_problem, open_store, split_uri
from pipeline.store_errors import translated
from pipeline.weights.opening import StoreWeights


@pytest.fixture(params=["disk", "moto", pytest.param("swift", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "disk":
        return open_store(str(tmp_path / "some folder" / "out"))
    bucket: str = request.getfixturevalue(f"{request.param}_s3")
    return open_store(f"{bucket}/some prefix/out")


def test_what_is_put_comes_back(store: Store) -> None:
    assert store.put("records/a b.1f.json", "{'图': 1}".encode())
    assert store.get("records/a b.1f.json") == "{'图': 1}".encode()
    assert store.head("records/a b.1f.json") == 10
    assert store.put("records/a b.1f.json", b"second")
    assert store.get("records/a b.1f.json") == b"second"


def test_create_refuses_what_is_there_and_changes_nothing(store: Store) -> None:
    assert store.put("a", b"first", create=True) is True
    assert store.put("a", b"second", create=True) is False
    assert store.get("a") == b"first"


def test_a_list_is_complete_below_a_folder_and_nothing_beside_it(store: Store) -> None:
    for key in ("records/a.json", "records/deep/b.json", "records2/c.json", "top"):
        store.put(key, key.encode())
    found = sorted(store.list("records"))
    assert [(each.key, each.size_bytes) for each in found] == [("records/a.json", 14), ("records/deep/b.json", 19)]
    assert all(abs(datetime.now(UTC) - each.modified_at) < timedelta(minutes=1) for each in found)
    assert {each.key for each in store.list()} == {"records/a.json", "records/deep/b.json", "records2/c.json", "top"}
    assert list(store.list("nothing")) == []


def test_the_mark_of_a_folder_is_nothing_in_it(moto_s3: str) -> None:
    """An empty object of its name, as web consoles make them."""
    store, client = open_store(f"{moto_s3}/out"), boto3.client("s3")
    for key in ("out/", "out/clips/"):
        client.put_object(Bucket=moto_s3.removeprefix("s3://"), Key=key, Body=b"")
    client.close()
    store.put("clips/a", b"1")
    assert [each.key for each in store.list("clips")] == ["clips/a"]


def test_an_empty_place_lists_nothing(store: Store) -> None:
    assert list(store.list()) == []
    assert list(store.list("records")) == []


def test_ranges_are_exact_or_an_error(store: Store) -> None:
    store.put("weights", bytes(range(100)))
    assert store.get_range("weights", 10, 13) == bytes([10, 11, 12])
    assert store.get_range("weights", 0, 100) == bytes(range(100))
    assert store.get_range("weights", 7, 7) == b""
    with pytest.raises(StoreError, match=r"cannot read .*/weights"):
        store.get_range("weights", 90, 101)
    with pytest.raises(StoreError, match=r"cannot read .*/weights"):
        store.get_range("weights", 200, 201)


def test_a_large_file_goes_up_in_parts_and_streams_back(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(os.urandom(1 << 20) * 20)  # more than one part
    store.put_file("clips/clip.mp4", source)
    assert store.head("clips/clip.mp4") == source.stat().st_size
    pieces = list(store.stream("clips/clip.mp4"))
    assert b"".join(pieces) == source.read_bytes()
    assert max(map(len, pieces)) < 15 << 20, "the whole object was held in memory"


def test_an_upload_of_another_size_than_the_file_is_an_error(tmp_path: Path) -> None:
    """A file of no size to the file system, and yet with content: as if it had grown on the way."""
    store = open_store(str(tmp_path))
    with pytest.raises(StoreError, match=r"cannot write .*/clips/a\.mp4: 0 bytes sent, [1-9]\d* arrived"):
        store.put_file("clips/a.mp4", Path("/proc/version"))


def test_delete_is_about_the_end_state(store: Store) -> None:
    store.put("a", b"1")
    store.delete("a")
    store.delete("a")
    assert store.head("a") is None


def test_what_is_not_there(store: Store) -> None:
    store.put("file", b"1")
    assert store.head("nothing") is None
    with pytest.raises(StoreError, match=r"cannot read .*/nothing: there is no such object"):
        store.get("nothing")
    with pytest.raises(StoreError, match=r"cannot read .*/nothing: there is no such object"):
        list(store.stream("nothing"))


@pytest.mark.parametrize("key", ["", "/abs", "a//b", "../a", "a/../b", ".", "a/", "a\nb", "a#12", "a\x7f", "x" * 231])
def test_keys_that_mean_different_things_in_different_places_are_refused(store: Store, key: str) -> None:
    for act in (store.get, store.head, store.delete, lambda key: store.put(key, b"")):
        with pytest.raises(StoreError, match="cannot be used below"):
            act(key)


@pytest.mark.parametrize("key", ["图 1#.png", "p%20x.png", "q?*[1].png", "a+b&c=d.png", "it's.png", "x" * 230])
def test_odd_but_legal_names_survive(store: Store, key: str) -> None:
    store.put(f"images/{key}", b"1")
    assert store.get(f"images/{key}") == b"1"
    assert [each.key for each in store.list("images")] == [f"images/{key}"]


def test_a_store_travels_to_another_process(store: Store) -> None:
    store.put("a", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.get("a") == b"1"
    assert copy.uri == store.uri


def test_weights_are_read_by_range(store: Store) -> None:
    store.put("base/model.safetensors", b"0123456789")
    store.put("notes.txt", b"")
    weights = StoreWeights(store)
    assert weights.names() == ["base/model.safetensors", "notes.txt"]
    assert weights.size_bytes("base/model.safetensors") == 10
    assert weights.read("base/model.safetensors", 3, 6) == b"345"
    with pytest.raises(StoreError, match="no such object"):
        weights.size_bytes("text/model.safetensors")


def test_one_of_many_racing_creators_wins_on_disk(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    start = threading.Barrier(8)

    def create(number: int) -> bool:
        start.wait(timeout=10)
        return store.put("records/a", b"%d" % number, create=True)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert won.count(True) == 1
    assert store.get("records/a") == b"%d" % won.index(True)


def test_a_reader_on_disk_never_sees_an_unfinished_file(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    store = open_store(str(tmp_path))

    def write(file: object) -> None:
        seen.append(os.listdir(tmp_path / "clips"))
        seen.append([each.key for each in store.list()])

    durable.write_file(tmp_path / "clips" / "a.mp4", write, create=False)
    assert len(seen[0]) == 1, "written in the target's own folder, so that publishing it is one rename"
    assert seen[0] != ["a.mp4"], "not under its final name"
    assert seen[1] == []
    assert os.listdir(tmp_path / "clips") == ["a.mp4"]


def test_a_failed_write_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def write(file: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="cannot write there: no space left"), translated("write", "there"):
        durable.write_file(target, write, create=False)
    assert os.listdir(tmp_path) == ["a"]
    assert target.read_bytes() == b"old"


def test_files_on_disk_have_the_permissions_of_ordinary_ones(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_bytes(b"")
    open_store(str(tmp_path)).put("ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_what_is_written_is_forced_to_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, os.replace

    def noting_sync(descriptor: int) -> None:
        calls.append("sync folder" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "sync file")
        sync(descriptor)

    def noting_replace(source: Path, target: Path) -> None:
        calls.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "replace", noting_replace)
    open_store(str(tmp_path)).put("new/a", b"1")
    assert calls == ["sync folder", "sync file", "name", "sync folder"]


def test_the_endpoint_of_the_settings_wins_over_the_environment(moto_s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store = open_store(moto_s3, StorageSettings(endpoint_url=good))
    assert store.put("a", b"1")


def test_plain_http_needs_an_address_that_says_so(moto_s3: str) -> None:
    """https:// to a server that speaks http must not fall back to it."""
    https = os.environ["AWS_ENDPOINT_URL"].replace("http://", "https://")
    with pytest.raises(StoreError, match="cannot be reached"):
        open_store(moto_s3, StorageSettings(endpoint_url=https, retries=0)).put("a", b"1")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host/x", r"storage ftp:// is not known, expected a local path, s3://, gs:// or az://"),
        ("s3://", "names no bucket, expected s3://bucket/prefix"),
        ("s3:///x", "names no bucket"),
        ("", "an empty address"),
    ],
)
def test_addresses_that_are_none(uri: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_store(uri)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/data/in/m.parquet", ("/data/in", "m.parquet")),
        ("/data/in/../m.parquet", ("/data", "m.parquet")),
        ("file:///data/m.parquet", ("/data", "m.parquet")),
        ("/m.parquet", ("/", "m.parquet")),
        ("s3://b/m.parquet", ("s3://b", "m.parquet")),
        ("s3://b/a b/c#1%20/m.parquet", ("s3://b/a b/c#1%20", "m.parquet")),
    ],
)
def test_an_address_splits_into_folder_and_name(uri: str, expected: tuple[str, str]) -> None:
    assert split_uri(uri) == expected


def test_a_relative_path_is_below_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("out")
    monkeypatch.chdir("/")
    store.put("a", b"1")
    assert (tmp_path / "out" / "a").read_bytes() == b"1"


def test_opening_makes_no_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "out"))
    assert list(store.list()) == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["timeout_s", "connect_timeout_s", "retry_timeout_s"])
def test_a_wait_without_an_end_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"storage.{name} is 0, expected more than 0"):
        StorageSettings(**{name: 0})  # type: ignore[arg-type]


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3))
def test_a_legal_key_has_the_same_parts_everywhere(parts: list[str]) -> None:
    """A key is refused, or it is a path whose parts are literally those given: nothing is cleaned up silently."""
    key = "/".join(parts)
    if key_problem(key) is None:
        assert os.path.normpath(key) == key
        assert not key.startswith("/")


@pytest.mark.parametrize("endpoint", ["foo", "localhost:9000", "ftp://host", "http://"])
def test_an_endpoint_that_is_no_address_is_a_setting_to_mend(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore would panic, which no `except` of ours can see."""
    with pytest.raises(ConfigError, match=r"storage\.endpoint_url is .*, expected http://HOST:PORT or https://HOST"):
        StorageSettings(endpoint_url=endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL is"):
        open_store("s3://bucket/prefix")


def test_an_output_below_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="a file is where a folder should be"):
        open_store(str(tmp_path / "file")).put("records/a", b"x")


def test_a_link_whose_answer_was_lost_is_known_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network's file system may link, lose the answer, try again and say that the name is taken."""
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    store = open_store(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", twice)
        assert store.put("a", b"ours", create=True) is True
    assert store.get("a") == b"ours"
    assert store.put("a", b"later", create=True) is False
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_system_without_hard_links_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path) -> None:  # as FAT answers, which cannot be mounted everywhere
        raise PermissionError(errno.EPERM, "Operation not permitted", str(source), None, str(target))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StoreError, match=r"cannot write .*/a: an output needs a file system with hard links, or "):
        open_store(str(tmp_path)).put("a", b"1", create=True)
    assert list(tmp_path.iterdir()) == []
