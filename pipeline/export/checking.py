"""All names of an export, before anything is written: none twice, none unsafe. Eight bytes a name are kept."""

import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable
from hashlib import blake2b

import numpy as np

from pipeline.counting import counted
from pipeline.errors import ConfigError
from pipeline.export.index import CSV, PARQUET
from pipeline.export.names import ATTEMPT, CLIP_ID, KIND, Pattern
from pipeline.export.rows import Row

SHOWN = 20


def row_names(row: Row, pattern: Pattern, kinds: Collection[str]) -> dict[str, str]:
    """Kind -> name, of the kinds that the clip has. ValueError for what cannot be a name."""
    names = {kind: pattern.fill({**row.values, KIND: kind}) for kind in row.kinds if kind in kinds}
    for name in names.values():
        if _folded(name.partition("/")[0]) in (PARQUET, CSV):
            raise ValueError(f"{name!r} would take the place of the index")
    return names


def check_names(rows: Iterable[Row], pattern: Pattern, kinds: Collection[str]) -> int:
    """The number of clips. ConfigError that names the clips of bad names (the first 20), nothing written.

    Names that differ only in case, or in how an accent is composed, are one file on some disks: the same name. That a
    name is another one's folder cannot be: cells hold no `/`, so all names are equally deep.
    """
    digests = array("Q")
    problems: list[str] = []
    num_rows = num_problems = 0
    for row in rows:
        num_rows += 1
        try:
            digests.extend(map(_digest, row_names(row, pattern, kinds).values()))
        except ValueError as error:
            num_problems += 1
            problems += [f"clip {row.clip_id}: {error}"] if num_problems <= SHOWN else []
    twice = _twice(digests)
    hints: list[str] = []
    if not num_problems and twice:
        problems, hints = _clashes(rows, pattern, kinds, twice)
        num_problems = len(problems)
    if problems:
        more = [f"and {num_problems - SHOWN} more"] if num_problems > SHOWN else []
        lines = "\n  ".join([*problems[:SHOWN], *more, *hints])
        raise ConfigError(f"name={pattern.text}: {counted(num_problems, 'problem')}, nothing was written\n  {lines}")
    return num_rows


def _twice(digests: "array[int]") -> frozenset[int]:
    """Of names that may be the same: two of 64 bits are alike once in a million exports of millions."""
    ordered = np.sort(np.array(digests, np.uint64))
    return frozenset(int(each) for each in ordered[1:][ordered[1:] == ordered[:-1]])


def _clashes(
    rows: Iterable[Row], pattern: Pattern, kinds: Collection[str], twice: Collection[int]
) -> tuple[list[str], list[str]]:
    """One line for each name behind the digests that came twice, with the first two of those that it stands for.

    And one for what the pattern lacks that would keep them apart: two records of one clip differ in their attempts.
    """
    users: dict[str, list[tuple[str, str]]] = defaultdict(list)
    lacking: set[str] = set()
    for row in rows:
        for kind, name in row_names(row, pattern, kinds).items():
            if _digest(name) not in twice:
                continue
            those = users[_folded(name)]
            if those:
                first_id, first_kind = those[0]
                lacking.add(CLIP_ID if row.clip_id != first_id else KIND if kind != first_kind else ATTEMPT)
            if len(those) < 2:
                those.append((row.clip_id, kind))
    problems = [
        f"{name} is the name of {' and of '.join(f'clip {clip_id} ({kind})' for clip_id, kind in two)}"
        for name, two in users.items()
        if len(two) > 1
    ]
    fields = [f"{{{name}}}" for name in (CLIP_ID, ATTEMPT, KIND) if name in lacking - set(pattern.columns)]
    return problems, [f"{' and '.join(fields)} in the name would keep them apart"] if fields else []


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _digest(name: str) -> int:
    return int.from_bytes(blake2b(_folded(name).encode(errors="surrogatepass"), digest_size=8).digest(), "big")
