"""Processes that a test steps one at a time: each runs to its next pause, and no two ever run at once.

A pause stands where a real process may be held up or killed: before and after every call of storage, and in every wait.
"""

import threading
from collections.abc import Callable

TIMEOUT_S = 60  # of one step: longer is a deadlock


class Killed(BaseException):
    """Unwinds a process that was killed; nothing that it still tries to do has an effect."""


class Process(threading.Thread):
    """A process of a model. What it raises is raised by `step`."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._raised: BaseException | None = None
        self.at = ""  # what it does at its pause, if that was said
        self.is_killed = False
        self.wakes_at: float | None = None  # it waits for the clock: stepping it makes no difference before
        self.is_over = False
        self.start()

    def run(self) -> None:
        self._wait()
        try:
            if not self.is_killed:
                self._work()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001  # raised again where the test is
            self._raised = error
        self.is_over = True
        self._back.release()

    def step(self, count: int = 1) -> None:
        """Runs on, by so many pauses."""
        for _ in range(count):
            if self.is_over:
                return
            self._go.release()
            if not self._back.acquire(timeout=TIMEOUT_S):
                raise AssertionError("a process neither paused nor ended")
            if self._raised is not None:
                raise self._raised

    def run_on(self, now: float, *, to: str | None = None) -> None:
        """As far as it gets at this time: until it waits for the clock, is over, or does what begins with `to`."""
        while not self.is_over and (self.wakes_at is None or self.wakes_at <= now):
            self.step()
            if to is not None and self.at.startswith(to):
                return

    def kill(self) -> None:
        self.is_killed = True
        self.step()

    def pause(self, *, until: float | None, at: str) -> None:
        if not self.is_killed:
            self.wakes_at, self.at = until, at
            self._back.release()
            self._wait()
        if self.is_killed:
            raise Killed

    def _wait(self) -> None:
        self._go.acquire()


def pause(*, until: float | None = None, at: str = "") -> None:
    """Here a process may be held up for ever. `until`: when it wants to go on; `at`: what it is about to do."""
    process = threading.current_thread()
    if isinstance(process, Process):
        process.pause(until=until, at=at)
