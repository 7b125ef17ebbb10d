"""How workers share out the tests of `make test`: in their order, and what is set up for several tests set up once.

Imported by the process that starts workers alone: without them pytest needs no xdist.
"""

from functools import cached_property
from itertools import groupby

from xdist.scheduler import LoadScopeScheduling

ONE_RAY = "tests/cluster/"  # its tests share a Ray of their own


class InPieces(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """A piece is what follows one another of one file: its quick tests, and later its slow ones."""

    def _split_scope(self, nodeid: str) -> str:
        return self._pieces[nodeid]

    @cached_property
    def _pieces(self) -> dict[str, str]:
        collected = next(iter(self.registered_collections.values()))  # all have the same
        runs = enumerate(groupby(collected, key=_whole))
        return {nodeid: f"{number} {whole}" for number, (whole, run) in runs for nodeid in run}


def _whole(nodeid: str) -> str:
    return ONE_RAY if nodeid.startswith(ONE_RAY) else nodeid.partition("::")[0]
