"""What an output's storage can do, tried out before anything is started: writing, create-only, and its clock.

Writes a few small objects below `lease/` and removes them. Their names begin with PROBE, for whoever lists leases.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Barrier
from typing import Literal

from pipeline.errors import StoreError
from pipeline.store import Store

PROBE = "lease/probe-"
NUM_RACERS = 8
NUM_RACES = 6
RACE_BYTES = 64_000  # Swift lets several win in 5 of 6 races of this size, in half of those of a few bytes
RACE_TIMEOUT_S = 120.0
CLOCK_STEP_S = 1.0  # many stores say when an object was written in whole seconds, rounded either way
FAR_OFF_S = 60.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StoreMode:
    """How far an output's storage can be relied on."""

    create: Literal["atomic", "racy", "ignored"]  # racy: of several creators at once more than one may win
    clock_offset_s: float  # the store's clock minus ours; 0 where they cannot be told apart

    def __str__(self) -> str:
        means = {
            "atomic": "create-only writes are atomic",
            "racy": "several creators at once may all win: leases go by age",
            "ignored": "create-only is ignored, it overwrites: leases go by age",
        }
        clock = "" if not self.clock_offset_s else f"; its clock is {self.clock_offset_s:+.0f} s from ours"
        return f"{means[self.create]}{clock}"


def probe(store: Store, *, clock: Callable[[], float] = time.time) -> StoreMode:
    """Tries out an output. StoreError, in one line, if it cannot be written to, read, listed or deleted from."""
    with _keys(store) as new_key:
        offset_s = _clock_offset_s(store, new_key(), clock)
        create: Literal["atomic", "racy", "ignored"] = "atomic"
        if not _create_holds(store, new_key()):
            create = "ignored"
        elif any(_num_winners(store, new_key()) > 1 for _ in range(NUM_RACES)):
            create = "racy"
    mode = StoreMode(create=create, clock_offset_s=offset_s)
    level = logging.INFO if create != "ignored" and abs(offset_s) < FAR_OFF_S else logging.WARNING
    log.log(level, "%s: %s", store.uri, mode)
    return mode


@contextmanager
def _keys(store: Store) -> Iterator[Callable[[], str]]:
    """Gives out new keys and removes them all. What went wrong first is what is raised."""
    made: list[str] = []

    def new_key() -> str:
        made.append(f"{PROBE}{secrets.token_hex(8)}")
        return made[-1]

    try:
        yield new_key
    except BaseException:
        for key in made:
            try:
                store.delete(key)
            except StoreError:
                break
        raise
    for key in made:
        store.delete(key)


def _clock_offset_s(store: Store, key: str, clock: Callable[[], float]) -> float:
    before = clock()
    store.put(key, b"what time is it?")
    after = clock()
    folder = key.rpartition("/")[0]
    written = next((each.modified_at.timestamp() for each in store.list(folder) if each.key == key), None)
    if written is None:
        raise StoreError(f"{store.where(key)} was written, but a listing of {store.where(folder)} does not have it")
    if written > after + CLOCK_STEP_S:
        return written - after
    return min(0.0, written - before) if written < before - CLOCK_STEP_S else 0.0


def _create_holds(store: Store, key: str) -> bool:
    """Whether a second creator, long after the first, is told so and changes nothing."""
    store.put(key, b"first", create=True)
    return not store.put(key, b"second", create=True) and store.get(key) == b"first"


def _num_winners(store: Store, key: str) -> int:
    """Of several creators at once."""
    start = Barrier(NUM_RACERS)
    body = bytes(RACE_BYTES)

    def create(_: int) -> bool:
        start.wait(timeout=RACE_TIMEOUT_S)
        return store.put(key, body, create=True)

    with ThreadPoolExecutor(NUM_RACERS) as pool:
        return sum(pool.map(create, range(NUM_RACERS)))
