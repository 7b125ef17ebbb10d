"""`happyhorse parity path=DIR [tp=N] [only=GLOB]`: a table of errors against the limits. Exit 0 all ok, 1 otherwise."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.typed import build
from model.parity import ParityError, ParityRow, run_parity
from pipeline.errors import ConfigError

COLOURS = {"ok": "green", "OFF": "red"}


@dataclass(frozen=True, kw_only=True)
class ParitySettings:
    path: str
    tp: int
    only: str


def parity(values: Mapping[str, Any]) -> int:
    settings = build(ParitySettings, values, at="")
    try:
        rows = run_parity(settings.path, tp=settings.tp, only=settings.only)
    except ParityError as error:
        raise ConfigError(str(error)) from error
    show(rows)
    return exit_code(rows)


def exit_code(rows: Sequence[ParityRow]) -> int:
    return 0 if all(row.verdict == "ok" for row in rows) else 1


def show(rows: Sequence[ParityRow]) -> None:
    table = Table("file", "output", "error", "limit", "verdict")
    for row in rows:
        colour = COLOURS[row.verdict]
        table.add_row(row.file, row.output, f"{row.error:.1e}", f"{row.limit:.0e}", f"[{colour}]{row.verdict}[/]")
    # A pipe has no width; eighty columns would cut the names.
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in COLOURS}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
