"""Logs of attempts: what is written, in which order it is read, and that storage's refusal hurts nothing."""

import logging
import threading
from pathlib import Path

import pytest

from pipeline.clip_logs import ClipLogs, read_clip_logs
from pipeline.lease.holding import Lease
from pipeline.store import Store, open_store
from tests.leases import lease_of
from tests.memory_store import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def logs_of(store: Store, *, lease: Lease | None = None, run_id: str = "run-1") -> ClipLogs:
    return ClipLogs(store, run_id=run_id, lease=lease or lease_of(store))


def test_attempts_are_read_in_the_order_in_which_they_ended(store: MemoryStore) -> None:
    logs = logs_of(store)
    logs.write("a", attempt="ffffffff", lines=["first", "lost group-1"])
    logs.close()
    again = logs_of(store, run_id="run-2")
    again.write("a", attempt="00000000", lines=["second", "recorded"])
    again.close()
    first, second = read_clip_logs(store, "a")
    assert (first.key, second.key) == ("logs/a.ffffffff.log", "logs/a.00000000.log")
    assert first.text.splitlines()[0].startswith("clip a, attempt ffffffff, run run-1, ended 2")
    assert first.text.splitlines()[1:] == ["first", "lost group-1"]


def test_a_clips_logs_are_its_own(store: MemoryStore) -> None:
    logs = logs_of(store)
    for clip_id in ("run", "run.1", "a"):
        logs.write(clip_id, attempt="00000001", lines=[clip_id])
    logs.close()
    store.put("logs/run.20261122-010203-0badcafe.log", b"the run's own")
    assert [each.key for each in read_clip_logs(store, "run")] == ["logs/run.00000001.log"]
    assert [each.key for each in read_clip_logs(store, "run.1")] == ["logs/run.1.00000001.log"]


def test_secrets_in_addresses_are_not_written(store: MemoryStore) -> None:
    logs = logs_of(store)
    logs.write("a", attempt="00000001", lines=["cannot read https://me:word@host/a.png?token=1"])
    logs.close()
    (found,) = read_clip_logs(store, "a")
    assert "word" not in found.text
    assert "token=1" not in found.text


def test_storage_that_refuses_them_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(str(tmp_path))
    lease = lease_of(store)
    (tmp_path / "logs").write_text("a file where a folder is needed")
    logs = logs_of(store, lease=lease)
    with caplog.at_level(logging.WARNING):
        for n in range(3):
            logs.write("a", attempt=f"{n:08x}", lines=[])
        logs.close()
    (line,) = [each.getMessage() for each in caplog.records]
    assert line.startswith("logs of clips are missing: cannot write")


class Slow(MemoryStore):
    """Takes its time for logs."""

    def put(self, key: str, data: bytes, *, create: bool = False) -> bool:
        if key.startswith("logs/"):
            threading.Event().wait(0.1)
        return super().put(key, data, create=create)


def test_what_is_under_way_when_the_run_ends_arrives() -> None:
    store = Slow()
    logs = logs_of(store)
    for n in range(3):
        logs.write("a", attempt=f"{n:08x}", lines=[])
    assert len(read_clip_logs(store, "a")) < 3
    logs.close()
    assert len(read_clip_logs(store, "a")) == 3


def test_a_run_that_lost_its_output_writes_no_log_there(store: MemoryStore) -> None:
    lost = lease_of(store)
    lease_of(store)  # by taking it over
    lost.renew()
    logs = logs_of(store, lease=lost)
    logs.write("a", attempt="00000001", lines=[])
    logs.close()
    assert not read_clip_logs(store, "a")
