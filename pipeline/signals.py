"""SIGINT and SIGTERM of a run. Correctness never needs them: a run may be killed at any time."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.driver import StopSignal

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def heard_at_last() -> Iterator[None]:
    """KeyboardInterrupt at the end for a stop that came meanwhile, whatever somebody else's handler made of it.

    One that raises where Python ignores exceptions, as in what follows a fork, would be a stop that nobody heard.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, pythons = socket.socketpair()
    with ours, pythons:
        ours.setblocking(False)
        pythons.setblocking(False)
        before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
        try:
            heard = ours.recv(4096)
        except BlockingIOError:
            heard = b""
    if set(heard) & set(STOPPING):
        raise KeyboardInterrupt


_forks_apart = False


@contextmanager
def children_apart() -> Iterator[None]:
    """Processes that are started meanwhile lead groups of their own: what is sent to all of our group misses them.

    `timeout` and supervisors send SIGTERM to a group; Ray shields its processes from SIGINT alone. Without the kernel's
    help (macOS) Ray ends them by their group, which has to be ours then.
    """
    global _forks_apart
    _forks_apart = sys.platform == "linux"
    try:
        yield
    finally:
        _forks_apart = False


def _lead_a_group() -> None:
    if _forks_apart:
        os.setpgid(0, 0)


os.register_at_fork(after_in_child=_lead_a_group)  # for good: Python knows no way to take it back


class Signals:
    """Counted: the first stops gently, the second at once."""

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop

    def listen(self) -> None:
        """Only the main thread can; whoever calls us from another has the signals."""
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                signal.signal(number, self._count)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """From before Ray starts until it is gone; then everything is as it was."""
        before = {number: signal.getsignal(number) for number in STOPPING}
        self.listen()
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _count(self, number: int, frame: object) -> None:
        self._stop.count += 1
