"""One thing that is wrong with an output, and a heap of such things that stays small."""

from dataclasses import dataclass, field

MOST_KEPT = 10_000


@dataclass(frozen=True, kw_only=True, order=True)
class AuditFinding:
    """About a record itself (`file` is empty), a file that it names, or something that a run left beside them."""

    record: str
    file: str = ""
    got: str
    expected: str

    def __str__(self) -> str:
        about = f"{self.record}: {self.file}" if self.file else self.record
        return f"{about}: got {self.got}, expected {self.expected}"


@dataclass(kw_only=True)
class Findings:
    """The first in full, the others counted."""

    kept: list[AuditFinding] = field(default_factory=list)
    num_more: int = 0

    def __len__(self) -> int:
        return len(self.kept) + self.num_more

    def add(self, finding: AuditFinding) -> None:
        if len(self.kept) < MOST_KEPT:
            self.kept.append(finding)
        else:
            self.num_more += 1
