"""The table for people (terminal and docs/benchmarks/foal.md) and the same as JSON."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.judge.cells import Cell


@dataclass(frozen=True, kw_only=True)
class Section:
    """One group of clips."""

    title: str
    cells: Sequence[Cell] = ()
    mistakes: Mapping[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    words: str = ""  # how it was rendered, or why not

    @property
    def missed(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.met is False]


@dataclass(frozen=True, kw_only=True)
class Report:
    date: str
    command: str
    seed: int
    cpu: str
    versions: Mapping[str, str]
    weights_digest: str  # SHA-256 of all parts
    sections: Sequence[Section]


def lines_of(section: Section) -> list[str]:
    """The section as Markdown, which is also what the terminal shows."""
    lines = [f"## {section.title}", "", *([section.words, ""] if section.words else [])]
    if section.cells:
        lines += ["| | wanted | measured | |", "| --- | --- | --- | --- |"]
    for cell in section.cells:
        verdict = {None: "", True: "met", False: "**missed**"}[cell.met]
        lines.append(f"| {cell.name} | {cell.wanted} | {cell.measured} | {verdict} |")
    wrong = [f"* {aspect}: {_counted(pairs)}" for aspect, pairs in section.mistakes.items() if pairs]
    return [*lines, *(["", "Asked for -> judged, where they differ:", "", *wrong] if wrong else []), ""]


def _counted(pairs: Counter[tuple[str, str]]) -> str:
    return ", ".join(f"{wanted} -> {got} {count}" for (wanted, got), count in pairs.most_common())


def markdown(report: Report) -> str:
    """The whole file."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    head = [
        "# The foal, judged",
        "",
        "Held-out prompts rendered by `happyhorse render`, measured by `model/foal/judge.py` from the delivered files.",
        "What it measures and how it is itself checked: `tests/model/test_judge.py`. Written by `make judge`.",
        "",
        "| | |",
        "| --- | --- |",
        f"| date | {report.date} |",
        f"| command | `{report.command}` |",
        f"| prompts' seed | {report.seed} |",
        f"| weights, SHA-256 | `{report.weights_digest}` |",
        f"| machine | {report.cpu} |",
        f"| software | {versions} |",
        "",
    ]
    return "\n".join([*head, *(line for section in report.sections for line in lines_of(section))]).rstrip() + "\n"


def write(report: Report, path: Path) -> None:
    """`path`.md and `path`.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(markdown(report))
    values = {
        **{name: value for name, value in asdict(report).items() if name != "sections"},
        "sections": {
            section.title: [
                asdict(cell) | {"value": cell.value if math.isfinite(cell.value) else None, "met": cell.met}
                for cell in section.cells
            ]
            for section in report.sections
        },
    }
    path.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n")
