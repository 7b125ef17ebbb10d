"""What a nightly needs of the world: a clock, and somebody who looks at manifests and renders them. Plain values."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pipeline.driver import StopSignal
from pipeline.nightly.agenda import Work
from pipeline.nightly.inbox import Found
from pipeline.summary import RunSummary, Snapshot


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware."""

    def sleep(self, seconds: float, /) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Look:
    """What there is to do for one manifest."""

    num_clips: int
    num_left: int
    failed: tuple[str, ...]  # ids of clips that are not tried again
    digest: str  # of all that its clips are made of: changes when something is to be made anew
    work: Work


@dataclass(frozen=True, kw_only=True)
class Rendered:
    summary: RunSummary
    gpus: int | None  # that it had, on CPUs ranks; None: it never came so far


class Renderer(Protocol):
    def look(self, found: Found, /) -> Look:
        """ManifestError for bad rows, StoreError where it cannot be read."""

    def render(self, found: Found, /, *, stop: StopSignal, observe: Callable[[Snapshot], None]) -> Rendered:
        """LeaseHeld where another run is at work on its output, StoreError or ClusterError where it cannot begin."""
