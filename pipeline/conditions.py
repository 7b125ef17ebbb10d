"""Embeddings, and latents of images and sounds, that clips wait for: each distinct one is made once, kept while it is
of use.

Holds handles only. Knows neither how conditions are made nor where they lie.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from itertools import chain, islice

from pipeline.fleet import Condition, Handle, Text, conditions_of
from pipeline.types import Clip


class Conditions:
    """Made, being made, or not yet wanted. At most `max_kept` are held, the least recently wanted go first."""

    def __init__(self, clips: Sequence[Clip], *, max_kept: int) -> None:
        self._max_kept = max_kept
        self._users = Counter(condition for clip in clips for condition in dict.fromkeys(conditions_of(clip).values()))
        self._made: OrderedDict[Condition, tuple[Handle, float]] = OrderedDict()
        self._in_work: set[Condition] = set()
        self._failures: Counter[Condition] = Counter()

    def begin_next(self, window: Sequence[Clip], *, most: int) -> tuple[Condition, ...]:
        """The next conditions that nobody makes yet, to be made by one encoder. None: ().

        Those of these clips come first, then those of all others, if all that are left may be kept. What has failed
        before comes last, and alone. At most `most` texts go together, and those of the first clip do not wait for
        others. What the clips have already is not dropped soon, and all that they need together is kept.
        """
        needed = list(dict.fromkeys(condition for clip in window for condition in conditions_of(clip).values()))
        for condition in needed:
            if condition in self._made:
                self._made.move_to_end(condition)
        while len(self._made) > max(self._max_kept, len(needed)):
            self._made.popitem(last=False)
        first = [each for clip in window[:1] for each in conditions_of(clip).values() if not self._failures[each]]
        others = self._users if len(self._users) <= self._max_kept else ()
        chosen = self._together(dict.fromkeys(first), most)
        chosen = chosen or self._together(dict.fromkeys(chain(needed, others)), most)
        self._in_work.update(chosen)
        return chosen

    def _together(self, wanted: Iterable[Condition], most: int) -> tuple[Condition, ...]:
        missing = [each for each in wanted if self._is_missing(each)]
        if not missing:
            return ()
        best = min(missing, key=lambda condition: self._failures[condition])
        if self._failures[best] or not isinstance(best, Text):
            return (best,)
        return tuple(islice((each for each in missing if isinstance(each, Text) and not self._failures[each]), most))

    def _is_missing(self, condition: Condition) -> bool:
        return condition not in self._made and condition not in self._in_work

    def are_complete(self) -> bool:
        """Whether nothing is left to be made, unless something is lost."""
        return len(self._made) == len(self._users) and not self._in_work

    def are_missing(self, window: Iterable[Clip]) -> bool:
        """Whether any of these clips wants something that nobody makes."""
        return any(map(self._is_missing, chain.from_iterable(conditions_of(clip).values() for clip in window)))

    def made(self, condition: Condition, handle: Handle, *, seconds: float) -> None:
        self._in_work.discard(condition)
        if condition in self._users:
            self._made[condition] = (handle, seconds)

    def not_made(self, condition: Condition, *, suspected: bool) -> None:
        """`suspected`: it may be to blame, and is made alone from now on."""
        self._in_work.discard(condition)
        self._failures[condition] += suspected

    def handles(self, clip: Clip) -> dict[str, Handle] | None:
        """All of a clip's conditions by role; None while any is missing."""
        roles = conditions_of(clip)
        if any(condition not in self._made for condition in roles.values()):
            return None
        return {role: self._made[condition][0] for role, condition in roles.items()}

    def seconds(self, clip: Clip) -> float:
        """What making them took, shared ones counted whole."""
        return sum(self._made[each][1] for each in set(conditions_of(clip).values()) if each in self._made)

    def forget(self, clip: Clip) -> None:
        """The handles lead nowhere any more: make them again."""
        for condition in conditions_of(clip).values():
            self._made.pop(condition, None)

    def release(self, clip: Clip) -> None:
        """The clip will not ask again: drop what no other clip uses."""
        for condition in set(conditions_of(clip).values()):
            self._users[condition] -= 1
            if self._users[condition] <= 0:
                del self._users[condition]
                self._made.pop(condition, None)


def users_of(conditions: Iterable[Condition], clips: Iterable[Clip]) -> list[Clip]:
    wanted = set(conditions)
    return [clip for clip in clips if not wanted.isdisjoint(conditions_of(clip).values())]
