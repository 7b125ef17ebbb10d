"""SIGINT and SIGTERM of a run. Correctness never needs them: a run may be killed at any time."""

import signal
import socket
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
