"""Cards that nothing is to be started on: each is held by an actor that does nothing with it.

Ray chooses cards inside a node by itself and knows no way to leave one out. So actors that want a card there are
started until one gets the right one, and the others are ended again. Meanwhile no group should be started: it might
get the card first, and those that the others hold are back at once.
"""

import logging
import threading
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.crews.deadlines import Attention
from pipeline.fleet import Gpu
from pipeline.worker import Seat, seat

GET_S = 10.0
SEEK_S = 60.0  # a card that is not to be had in that time is somebody else's
log = logging.getLogger(__name__)


class Holder:
    """Has a card and leaves it alone."""

    def where(self) -> Seat:
        return seat()

    def stay(self) -> None:
        """Never answers."""
        threading.Event().wait()


class Guard:
    """Of one card. `asked` is what the newest actor is to answer: where it is, and from then on that it stays."""

    def __init__(self, gpu: Gpu, *, clock: Attention) -> None:
        self.gpu, self._clock = gpu, clock
        self._since_s = clock.now
        self.actors: list[Any] = []
        self.asked: Any = None  # given up, if nothing
        self.seeks = True
        self._seek()

    def _seek(self) -> None:
        strategy = NodeAffinitySchedulingStrategy(self.gpu.node, soft=False)
        options = {"num_cpus": 0, "num_gpus": 1, "max_restarts": 0, "scheduling_strategy": strategy}
        self.actors.append(ray.remote(Holder).options(**options).remote())
        self.asked = self.actors[-1].where.remote()

    def collect(self) -> bool:
        """Takes the answer, which has arrived. False: it had the card and is gone; another is to be held for it."""
        try:
            found: Any = ray.get(self.asked, timeout=GET_S)
        except RayError as error:
            log.warning("%s is not held back: %s", self.gpu, type(error).__name__)
            had_it = not self.seeks
            self.end()  # where it never had it, its node is gone, most likely
            return not had_it
        if found.card == self.gpu:
            self._keep(self.actors[-1:])
            self.asked, self.seeks = self.actors[0].stay.remote(), False
        else:
            self._seek()
        return True

    def check(self) -> None:
        if self.seeks and self._clock.now - self._since_s > SEEK_S:
            log.warning("%s cannot be held back: it is somebody else's", self.gpu)
            self.end()

    def end(self) -> None:
        self.asked, self.seeks = None, False
        self._keep([])

    def _keep(self, kept: list[Any]) -> None:
        for actor in self.actors:
            if actor not in kept:
                ray.kill(actor, no_restart=True)
        self.actors = kept


class Guards:
    """All of a fleet's. One seeks at a time, or two of a node might each have the other's card."""

    def __init__(self, clock: Attention) -> None:
        self._clock = clock
        self._wanted: frozenset[Gpu] = frozenset()
        self._guards: dict[Gpu, Guard] = {}

    def hold(self, gpus: frozenset[Gpu]) -> bool:
        """These and no others, as soon as may be. Whether there are new ones among them."""
        is_new = not gpus <= self._wanted
        self._wanted = gpus
        for gpu in self._guards.keys() - gpus:
            self._guards.pop(gpu).end()
        return is_new

    def actors(self) -> list[Any]:
        return [actor for guard in self._guards.values() for actor in guard.actors]

    def refs(self) -> list[Any]:
        return [guard.asked for guard in self._guards.values() if guard.asked is not None]

    def collect(self, ref: Any) -> None:
        for gpu, guard in list(self._guards.items()):
            if guard.asked == ref and not guard.collect():
                del self._guards[gpu]

    def seek(self) -> bool:
        """Goes on with it. Whether all that can be had are held."""
        for guard in self._guards.values():
            guard.check()
        ahead = sorted(self._wanted - self._guards.keys())
        if ahead and not self._seeks():
            self._guards[ahead[0]] = Guard(ahead[0], clock=self._clock)
        return not self._seeks()

    def _seeks(self) -> bool:
        return any(guard.seeks for guard in self._guards.values())
