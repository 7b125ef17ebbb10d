"""Ranges kept on a node: fetched once by many processes, never stale, bounded, and never in the way."""

import logging
import multiprocessing
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.store import StorageSettings, open_store
from pipeline.weights.cache import RangeCache
from pipeline.weights.opening import open_weights
from tests.cached import KEY, SIZE, Source, content, die_while_fetching, read_all, roomy


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "log")


@pytest.fixture
def cache(tmp_path: Path) -> RangeCache:
    return roomy(tmp_path / "cache")


def test_of_many_processes_one_fetches(tmp_path: Path) -> None:
    starts = [n * SIZE for n in range(4)]
    spawn = multiprocessing.get_context("spawn")
    orders = [starts, starts[::-1], starts, starts[::-1]]
    processes = [spawn.Process(target=read_all, args=(tmp_path / "cache", tmp_path / "log", order)) for order in orders]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert Source(tmp_path / "log").fetched() == starts


def test_a_process_that_dies_holds_nobody_up(tmp_path: Path, source: Source, cache: RangeCache) -> None:
    process = multiprocessing.get_context("spawn").Process(target=die_while_fetching, args=(cache.folder,))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    began = time.monotonic()
    assert not source.read(cache, 0)
    assert time.monotonic() - began < 5


def test_what_is_small_or_too_large_is_not_kept(source: Source, tmp_path: Path) -> None:
    tiny = RangeCache(tmp_path / "cache", limit_bytes=SIZE - 1)
    assert not source.read(tiny, 0)
    buffer = bytearray(10)
    assert not roomy(tmp_path / "cache").read(KEY, 0, memoryview(buffer), lambda: None)
    assert not (tmp_path / "cache").exists()


def test_a_file_that_is_not_whole_counts_as_none(source: Source, cache: RangeCache) -> None:
    source.read(cache, 0)
    (path,) = cache.folder.glob(f"{KEY}/*")
    path.write_bytes(content(0)[:-1])
    assert not source.read(cache, 0)
    assert source.read(cache, 0)


def test_the_bound_holds_and_what_was_read_last_stays(source: Source, tmp_path: Path) -> None:
    cache = RangeCache(tmp_path / "cache", limit_bytes=10 * SIZE)
    for n in range(9):
        source.read(cache, n * SIZE)
        time.sleep(0.01)
    assert source.read(cache, 0)  # the oldest becomes the youngest
    for n in range(9, 13):
        source.read(cache, n * SIZE)
        held = sum(path.stat().st_size for path in cache.folder.glob("*/*-*"))
        assert held <= 10 * SIZE
    assert source.read(cache, 0)
    assert not source.read(cache, SIZE)


def test_files_that_somebody_deleted_are_no_trouble(source: Source, tmp_path: Path) -> None:
    cache = RangeCache(tmp_path / "cache", limit_bytes=3 * SIZE)
    for n in range(2):
        source.read(cache, n * SIZE)
    for path in cache.folder.glob("*/*-*"):
        path.unlink()
    (cache.folder / "total").write_text("who knows")
    for n in range(5):
        source.read(cache, n * SIZE)
    assert source.read(cache, 4 * SIZE)


@pytest.fixture
def small_files() -> Iterator[None]:
    """The system refuses to let any file of this process grow beyond half a range."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_disk_that_takes_no_more_costs_time_alone(
    source: Source, cache: RangeCache, caplog: pytest.LogCaptureFixture
) -> None:
    assert [source.read(cache, n * SIZE) for n in (0, 1, 0)] == [False] * 3
    assert [record.levelno for record in caplog.records] == [logging.WARNING], "said once"
    assert "not kept" in caplog.text
    assert not list(cache.folder.glob("*/*.part"))


def test_a_disk_is_not_filled_up_and_a_file_is_no_folder(
    source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full = RangeCache(tmp_path / "full", limit_bytes=100 * SIZE, keep_free=1.0)
    assert not source.read(full, 0)
    assert "fuller than 0%" in caplog.text
    (tmp_path / "file").touch()
    assert not source.read(roomy(tmp_path / "file"), 0)
    assert "not kept in" in caplog.messages[-1]


@pytest.mark.s3
@pytest.mark.parametrize("server", ["moto_s3", "swift_s3"])
def test_a_changed_object_is_never_served_stale(
    server: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"{request.getfixturevalue(server)}/weights")
    settings = StorageSettings(weights_cache=str(tmp_path / "cache"))
    size = 20 << 20  # several parts at once
    old, new = b"old." * (size // 4), b"new." * (size // 4)
    store.put("base/model.safetensors", old)
    first = open_weights(store.uri, settings)
    assert first.read("base/model.safetensors", 0, size) == old
    assert first.counts.fetched.total() == size
    again = open_weights(store.uri, settings)
    assert again.read("base/model.safetensors", 0, size) == old
    assert (again.counts.requested.total(), again.counts.fetched.total()) == (size, 0)

    store.put("base/model.safetensors", new)
    after = open_weights(store.uri, settings)
    assert after.read("base/model.safetensors", 0, size) == new
    with pytest.raises(StoreError, match="has changed since it was looked at"):
        first.read("base/model.safetensors", 0, size // 2)


@pytest.mark.s3
def test_without_a_cache_nothing_is_kept(moto_s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = open_store(f"{moto_s3}/weights")
    store.put("base/model.safetensors", bytes(SIZE))
    reader = open_weights(store.uri, StorageSettings(weights_cache=None))
    reader.read("base/model.safetensors", 0, SIZE)
    assert not list(tmp_path.iterdir())
    reader = open_weights(store.uri, StorageSettings())
    reader.read("base/model.safetensors", 0, SIZE)
    assert len(list(tmp_path.glob(".cache/happyhorse/weights/*/0-*"))) == 1
