"""A run's own log: which lines, what stands behind them, and what becomes of one that grows long."""

import logging
import sys
from collections.abc import Iterator

import pytest

from pipeline.errors import StoreError
from pipeline.lease.holding import Lease
from pipeline.log_lines import LineFormatter, named
from pipeline.run_log import RunLog, run_log_key, split_log
from tests.leases import lease_of
from tests.memory_store import MemoryStore

KEY = "logs/run.run-1.log"
log = logging.getLogger("pipeline.driver")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(autouse=True)
def _everything_is_said() -> Iterator[None]:
    before = log.level
    log.setLevel(logging.INFO)
    yield
    log.setLevel(before)


def log_of(store: MemoryStore, *, lease: Lease | None = None, most_bytes: int = 10_000) -> RunLog:
    return RunLog(store, run_id="run-1", lease=lease or lease_of(store), most_bytes=most_bytes)


def text_of(store: MemoryStore) -> str:
    return store.get(KEY).decode()


def test_lines_end_with_what_they_are_about(store: MemoryStore) -> None:
    with log_of(store):
        log.info("%s is ready", "group-0", extra={"group": "group-0"})
        log.warning("lost %s", "group-0", extra={"group": "group-0", "clip": "a"})
        log.warning("lost %s", "encoder-0", extra={"group": "encoder-0", "clip": None})
        logging.getLogger("another").warning("a library's words")
    ready, lost, encoder, another = text_of(store).splitlines()
    assert run_log_key("run-1") == KEY
    assert ready.endswith("INFO    pipeline.driver: group-0 is ready [run=run-1 group=group-0]")
    assert lost.endswith("lost group-0 [run=run-1 group=group-0 clip=a]")
    assert encoder.endswith("lost encoder-0 [run=run-1 group=encoder-0]")
    assert another.endswith("WARNING another: a library's words")


def test_what_it_is_about_stands_before_a_traceback() -> None:
    try:
        raise ValueError("inner")
    except ValueError:
        record = log.makeRecord("pipeline.x", logging.ERROR, "f", 1, "broken", (), sys.exc_info())
    first, *rest = LineFormatter("run-1").format(record).splitlines()
    assert first.endswith("broken [run=run-1]")
    assert rest[-1] == "ValueError: inner"


def test_without_a_run_nothing_is_added_and_secrets_never_stay() -> None:
    record = log.makeRecord("pipeline.x", logging.INFO, "f", 1, "from https://me:word@host/x", (), None)
    line = LineFormatter().format(record)
    assert line.endswith("from https://***@host/x")


def test_lines_on_stderr_carry_the_run_for_as_long_as_it_lasts() -> None:
    handler = logging.StreamHandler()
    formatter = LineFormatter()
    handler.setFormatter(formatter)
    logging.getLogger().addHandler(handler)
    try:
        with named("run-1"):
            assert formatter.run_id == "run-1"
        assert formatter.run_id is None
    finally:
        logging.getLogger().removeHandler(handler)


def test_a_long_log_loses_its_oldest_lines_and_says_how_many(store: MemoryStore) -> None:
    with log_of(store, most_bytes=1000):
        for n in range(100):
            log.info("line %d", n)
    assert len(store.get(KEY)) < 1100
    num_cut, lines = split_log(text_of(store))
    assert num_cut + len(lines) == 100
    assert lines[-1].endswith("line 99 [run=run-1]")
    assert f"line {num_cut} " in lines[0]


def test_it_is_written_only_when_there_is_something_new(store: MemoryStore) -> None:
    written: list[str] = []
    store.written = written.append
    own = log_of(store)
    with own:
        log.info("one")
        own.write()
        own.write()
        log.info("two")
    assert written.count(KEY) == 2
    assert own not in logging.getLogger().handlers
    assert [line.split(": ")[1] for line in text_of(store).splitlines()] == ["one [run=run-1]", "two [run=run-1]"]


class Refusing(MemoryStore):
    def put(self, key: str, data: bytes, *, create: bool = False) -> bool:
        if key == KEY:
            raise StoreError("cannot write: no space left")
        return super().put(key, data, create=create)


def test_storage_that_refuses_it_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    own = log_of(Refusing())
    with own:
        log.info("one")
        own.write()
        own.write()
    (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert line == "the run's log could not be written: cannot write: no space left"


def test_a_run_that_lost_its_output_writes_no_log_there(store: MemoryStore) -> None:
    lost = lease_of(store)
    lease_of(store)  # by taking it over
    lost.renew()
    with log_of(store, lease=lost):
        log.info("one")
    assert KEY not in store.objects
