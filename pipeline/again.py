"""What is submitted again under a name of today: the same twice is once, what has changed since is the next one. Pure.

Ray's Jobs server and Kubernetes keep a name for as long as they know its job, so the next one gets a number behind it.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import LeaseHeld

State = Literal["at work", "succeeded", "failed"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a job is to do. `mark`: of its settings and, where somebody has looked, its table (`mark_of`)."""

    name: str
    mark: str
    left: int | None = None  # clips without a record; None: nobody has looked


@dataclass(frozen=True, kw_only=True)
class Known:
    """A job that was submitted before, as its server tells of it."""

    name: str
    mark: str | None  # None: whoever submitted it left none
    status: str  # in the server's own words
    state: State


def mark_of(settings: str, table: str | None) -> str:
    """Two digests in one word, to be kept with a job."""
    return f"{settings}-{table or ''}"


def is_same(mark: str, other: str | None) -> bool:
    """As far as is known: a table at which nobody has looked may be any."""
    (settings, _, table), (others, _, its) = mark.partition("-"), (other or "").partition("-")
    return settings == others and (table == its or not table or not its)


def name_or_known(asked: Asked, look: Callable[[str], Known | None]) -> str | Known:
    """A name that nobody has yet, or the last job of that name, where it does what is asked for.

    LeaseHeld where it is at work and does not.
    """
    last: Known | None = None
    for number in itertools.count(1):
        name = asked.name if number == 1 else f"{asked.name}-{number}"
        known = look(name)
        if known is None:
            return name if last is None or is_followed(asked, last) else last
        last = known
    raise AssertionError("names do not end")


def is_followed(asked: Asked, last: Known) -> bool:
    """Whether a next job is wanted. LeaseHeld where it is, and the last one is still at work."""
    changed = not is_same(asked.mark, last.mark)
    if last.state != "at work":
        return last.state == "failed" or changed or bool(asked.left)
    if changed:
        wait = "submit again when it has ended, or cancel it first"
        raise LeaseHeld(f"job {last.name} is at work ({last.status}) with another table or other settings: {wait}")
    return False
