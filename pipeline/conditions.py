"""Embeddings, and latents of images and sounds, that clips wait for: each distinct one is made once, kept while it is
of use.

Holds handles only. Knows neither how conditions are made nor where they lie.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

from pipeline.fleet import Condition, Handle, conditions_of
from pipeline.types import Clip


class Conditions:
    """Made, being made, or not yet wanted. At most `max_kept` are held, the least recently wanted go first."""

    def __init__(self, clips: Sequence[Clip], *, max_kept: int) -> None:
        self._max_kept = max_kept
        self._users = Counter(condition for clip in clips for condition in set(conditions_of(clip).values()))
        self._made: OrderedDict[Condition, tuple[Handle, float]] = OrderedDict()
        self._in_work: set[Condition] = set()
        self._failures: Counter[Condition] = Counter()

    def begin_next(self, window: Sequence[Clip]) -> Condition | None:
        """The next condition of these clips that nobody makes yet: those that failed before come after the others.

        What the clips have already is not dropped soon, and all that they need together is kept.
        """
        needed = list(dict.fromkeys(condition for clip in window for condition in conditions_of(clip).values()))
        for condition in needed:
            if condition in self._made:
                self._made.move_to_end(condition)
        while len(self._made) > max(self._max_kept, len(needed)):
            self._made.popitem(last=False)
        missing = [each for each in needed if each not in self._made and each not in self._in_work]
        if not missing:
            return None
        chosen = min(missing, key=lambda condition: self._failures[condition])
        self._in_work.add(chosen)
        return chosen

    def made(self, condition: Condition, handle: Handle, *, seconds: float) -> None:
        self._in_work.discard(condition)
        if self._users[condition]:
            self._made[condition] = (handle, seconds)

    def not_made(self, condition: Condition) -> None:
        self._in_work.discard(condition)
        self._failures[condition] += 1

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
                self._made.pop(condition, None)


def users_of(condition: Condition, clips: Iterable[Clip]) -> list[Clip]:
    return [clip for clip in clips if condition in conditions_of(clip).values()]
