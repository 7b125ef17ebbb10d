"""Whether a process of this host still lives, with real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pipeline.lease import holder
from pipeline.lease.holder import Holder, is_gone, new_run_id, this_process


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[bytes], Holder]]:
    """A living process, and the holder that it would be."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        stat = holder._stat(process.pid)
        assert stat is not None
        yield process, replace(this_process("other"), pid=process.pid, started=stat[1])
        process.kill()


def test_we_live() -> None:
    assert not is_gone(this_process("own"))


def test_a_process_that_ends_is_gone_even_before_anybody_has_waited_for_it(
    other: tuple[subprocess.Popen[bytes], Holder],
) -> None:
    process, living = other
    assert not is_gone(living)
    process.send_signal(signal.SIGSTOP)
    assert not is_gone(living)  # it may go on
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table of processes
    assert is_gone(living)
    process.wait()
    assert is_gone(living)


def test_a_pid_that_is_used_again_is_another_process(other: tuple[subprocess.Popen[bytes], Holder]) -> None:
    _, living = other
    assert living.started is not None
    assert is_gone(replace(living, started=living.started - 1))


@pytest.mark.parametrize("elsewhere", [{"host": "another"}, {"boot": "another"}, {"boot": None}])
def test_of_other_machines_and_containers_nothing_is_known(elsewhere: dict[str, str | None]) -> None:
    nobody = replace(this_process("r"), pid=2**22 + 1, **elsewhere)  # type: ignore[arg-type]  # beyond Linux's last pid
    assert not is_gone(nobody)
    assert is_gone(replace(this_process("r"), pid=2**22 + 1))


def test_where_processes_cannot_be_looked_at_they_are_taken_to_live(monkeypatch: pytest.MonkeyPatch) -> None:
    own = this_process("own")
    monkeypatch.setattr(holder, "_stat", lambda pid: None)
    assert not is_gone(own)


def test_a_run_says_who_it_is() -> None:
    own = this_process("20261120-101500-0badcafe")
    assert str(own).startswith("run 20261120-101500-0badcafe (")
    assert f"process {os.getpid()}" in str(own)


def test_names_of_runs_sort_by_time_and_differ() -> None:
    early, late = datetime(2026, 11, 20, 9, tzinfo=UTC), datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert new_run_id(early) < new_run_id(late)
    assert len({new_run_id(early) for _ in range(50)}) == 50
