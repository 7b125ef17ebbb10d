"""A run that goes on while somebody else reads its output: one step before each of the reader's calls to storage."""

import threading
from collections.abc import Callable, Iterator

from pipeline.results import Moment
from pipeline.store import Entry, Part, Store
from tests.outputs import Run


class Script:
    """A run's steps: from the `at`-th call on, one before each."""

    def __init__(self, steps: Iterator[object], *, at: int) -> None:
        self.steps, self.left, self.lock = steps, at, threading.Lock()
        self.ended = False

    def go_on(self) -> None:
        with self.lock:
            self.left -= 1
            if self.left < 0:
                self.ended = next(self.steps, self) is self


class BusyStore(Store):
    """While it is read a run goes on."""

    script: Script

    def act(self, script: Script) -> "BusyStore":
        object.__setattr__(self, "script", script)
        return self

    def get(self, key: str) -> bytes:
        self.script.go_on()
        return super().get(key)

    def get_part(self, key: str, start: int, stop: int, *, etag: str | None = None) -> Part | None:
        self.script.go_on()
        return super().get_part(key, start, stop, etag=etag)

    def head(self, key: str) -> int | None:
        self.script.go_on()
        return super().head(key)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        self.script.go_on()
        yield from super().list(prefix)

    def stream(self, key: str) -> Iterator[bytes]:
        self.script.go_on()
        return super().stream(key)


def steps_of(make: Callable[[], Run]) -> Iterator[None]:
    """A run from its start to its end, by what an audit could see between."""
    run = make()
    yield None
    for clip in run.manifest.load(run.recorder.plan.to_render):
        finished = run.upload(clip, attempt=f"7777{clip.row:04}")
        yield None
        run.record(clip, finished)
        yield None
        run.recorder._write(run.recorder.outcomes, run.recorder.facts, Moment())
        yield None
    run.close()
