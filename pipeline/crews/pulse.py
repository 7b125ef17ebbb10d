"""How the ranks of a group are: each is asked again and again while it works. Who is silent is whom others wait for."""

from collections.abc import Mapping
from typing import Any

import ray

from pipeline.crews.deadlines import Attention
from pipeline.rank_worker import Health

SILENT_S = 3.0  # a rank that has not answered for so long is the culprit of a hang, not its victim
GET_S = 10.0


class Pulse:
    """`health` of each rank, and since when rank 0 is at its step."""

    def __init__(self, *, clock: Attention, period_s: float) -> None:
        self._clock, self._period_s = clock, period_s
        self.healths: dict[int, Health] = {}  # the last answer of each rank
        self.asked: dict[Any, int] = {}  # references of ranks that owe an answer
        self._asked_s: dict[int, float] = {}  # when each was asked last
        self._offered_s = self._stepped_s = 0.0

    def forget(self) -> None:
        for each in (self.healths, self.asked, self._asked_s):
            each.clear()

    def offered(self) -> None:
        self._offered_s = self._stepped_s = self._clock.now

    def ask(self, actors: Mapping[int, Any]) -> None:
        """All that owe no answer and were not asked just now."""
        owing = set(self.asked.values())
        for rank, actor in actors.items():
            if rank not in owing and self._clock.now - self._asked_s.get(rank, -self._period_s) >= self._period_s:
                self.asked[actor.health.remote()] = rank
                self._asked_s[rank] = self._clock.now

    def answered(self, ref: Any) -> None:
        """Takes an answer that has arrived. Raises RayError where the rank is gone."""
        rank = self.asked.pop(ref)
        answer: Any = ray.get(ref, timeout=GET_S)
        before, health = self.healths.get(rank), answer
        self.healths[rank] = health
        if rank == 0 and before is not None and (before.clip_id, before.step) != (health.clip_id, health.step):
            self._stepped_s = self._clock.now

    def step_of(self, clip_id: str) -> int:
        health = self.healths.get(0)
        return health.step if health is not None and health.clip_id == clip_id else 0

    def waited(self) -> tuple[float, float]:
        """Seconds since the offer, and since the last step or the offer."""
        return self._clock.now - self._offered_s, self._clock.now - self._stepped_s

    def silent(self) -> list[int]:
        """Ranks that owe an answer for long."""
        return sorted(rank for rank in self.asked.values() if self._clock.now - self._asked_s[rank] > SILENT_S)
