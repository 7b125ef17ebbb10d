"""The error tree. Third-party errors are translated into it where they arise; nothing above sees them.

RenderError
  ConfigError     unknown key, impossible combination          before any GPU; exit 2
  ManifestError   bad rows, all of them at once                before any GPU; exit 2
  WeightsError    keys, shapes or files do not match           before any clip; exit 2
  ClipError       this clip cannot be made; others go on       not retried on the same input
    EncodeError   ffmpeg said no; the end of its stderr attached
    OutOfMemory   no card of the run's holds what it needs
  EncoderLost     ffmpeg was killed or stood still             finished again, FAILED at its cap
  GroupLost       a rank, node or collective died              clip retried, group rebuilt; caps on both
  StoreError      storage said no                              the run stops, nothing half-written; exit 5
    LeaseLost     another run has taken the output over        the run stops, the clips go on in that one; exit 5
  ClusterError    there is no Ray to work with                 nothing was rendered; exit 5
  LeaseHeld       another run is at work on the output         nothing was started; exit 4
  OutputPaused    somebody paused the output                   nothing was started; exit 3
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from pipeline.counting import counted


class RenderError(Exception):
    """Root of every error a user may see; its message stands alone."""


class ConfigError(RenderError):
    pass


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one cell: `row` counts from 0 in manifest order, -1 for all rows; column "": the file."""

    row: int
    column: str
    value: str
    expected: str

    def __str__(self) -> str:
        where = f"row {self.row}, " if self.row >= 0 else ""
        where += f"column {self.column}: " if self.column else ""
        return f"{where}got {self.value}, expected {self.expected}"


def finding_kind(finding: Finding) -> tuple[str, str]:
    """What findings are counted by: the column, and what was expected but for what stands in brackets."""
    return finding.column, finding.expected.partition(" (")[0]


class ManifestError(RenderError):
    """All findings of a manifest; the message lists the first 20, then counts by kind. `more`: those not kept."""

    SHOWN = 20

    def __init__(
        self, source: str, findings: list[Finding], *, more: Mapping[tuple[str, str], int] | None = None
    ) -> None:
        self.source, self.findings, self.more = source, findings, dict(more or {})
        super().__init__(self._message())

    def __reduce__(self) -> tuple[object, ...]:
        return (partial(type(self), more=self.more), (self.source, self.findings))

    def _message(self) -> str:
        rest = Counter(finding_kind(finding) for finding in self.findings[self.SHOWN :]) + Counter(self.more)
        lines = [
            f"{self.source}: {counted(len(self.findings) + sum(self.more.values()), 'problem')}, nothing was started"
        ]
        lines += [f"  {finding}" for finding in self.findings[: self.SHOWN]]
        lines += [f"  and {count} more in column {column}, expected {kind}" for (column, kind), count in rest.items()]
        return "\n".join(lines)


class WeightsError(RenderError):
    pass


class ClipError(RenderError):
    pass


class EncodeError(ClipError):
    pass


class OutOfMemory(ClipError):
    pass


class EncoderLost(RenderError):
    pass


class GroupLost(RenderError):
    pass


class StoreError(RenderError):
    pass


class LeaseLost(StoreError):
    pass


class ClusterError(RenderError):
    pass


class LeaseHeld(RenderError):
    pass


class OutputPaused(RenderError):
    pass
