"""SIGINT and SIGTERM of a run. Correctness never needs them: a run may be killed at any time."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.driver import StopSignal

STOPPING = (signal.SIGINT, signal.SIGTERM)


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
