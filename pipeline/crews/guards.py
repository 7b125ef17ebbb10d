"""Cards that nothing is to be started on: each is held by an actor that does nothing with it.

Ray chooses cards inside a node by itself and knows no way to leave one out. So actors that want a card there are
started until one gets the right one, and the others are ended again. Meanwhile no crew that wants a card should be
started: it might get the card first, and those that the others hold are back at once.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.crews.deadlines import Attention
from pipeline.fleet import Gpu
from pipeline.worker import Seat, seat

GET_S = 10.0
SEEK_S = 60.0  # a card that is not to be had in that time is somebody else's; no crew waits longer for guards
AGAIN_S = 600.0  # until it is sought once more
State: TypeAlias = Literal["seeks", "holds", "gone"]
log = logging.getLogger(__name__)


class Holder:
    """Has a card and leaves it alone."""

    def where(self) -> Seat:
        return seat()

    def stay(self) -> None:
        """Never answers."""
        threading.Event().wait()


class Guard:
    """Of one card. `asked` is what the newest actor is to answer: where it is, and from then on that it stays.

    It `seeks`, then it `holds`, and in the end it is `gone`, with all of its actors.
    """

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.actors: list[Any] = []
        self.asked: Any = None
        self.state: State = "seeks"
        self._seek()

    def _seek(self) -> None:
        strategy = NodeAffinitySchedulingStrategy(self.gpu.node, soft=False)
        options = {"num_cpus": 0, "num_gpus": 1, "max_restarts": 0, "scheduling_strategy": strategy}
        self.actors.append(ray.remote(Holder).options(**options).remote())
        self.asked = self.actors[-1].where.remote()

    def collect(self) -> None:
        """Takes the answer, which has arrived."""
        try:
            found: Any = ray.get(self.asked, timeout=GET_S)
        except RayError as error:
            log.warning("%s is not held back: %s", self.gpu, type(error).__name__)
            self.end()
            return
        if self.gpu in found.cards:
            self._keep(self.actors[-1:])
            self.asked, self.state = self.actors[0].stay.remote(), "holds"
        else:
            self._seek()

    def end(self) -> None:
        self.asked, self.state = None, "gone"
        self._keep([])

    def _keep(self, kept: list[Any]) -> None:
        for actor in self.actors:
            if actor not in kept:
                ray.kill(actor, no_restart=True)
        self.actors = kept


class Keeper(Protocol):
    """What `Guards` knows of a guard."""

    actors: list[Any]
    asked: Any
    state: State

    def collect(self) -> None: ...

    def end(self) -> None: ...


class Guards:
    """All of a fleet's. One seeks at a time, or two of a node might each have the other's card.

    A card that was not to be had is sought again after a while.
    """

    def __init__(self, clock: Attention, *, guard: Callable[[Gpu], Keeper] = Guard) -> None:
        self._clock, self._guard = clock, guard
        self._wanted: frozenset[Gpu] = frozenset()
        self._guards: dict[Gpu, Keeper] = {}
        self._since_s = 0.0  # when the one that seeks began
        self._missed: dict[Gpu, float] = {}  # that were not to be had, and when that was

    def hold(self, gpus: frozenset[Gpu]) -> bool:
        """These and no others, as soon as may be. Whether there are new ones among them."""
        is_new = not gpus <= self._wanted
        self._wanted = gpus
        for gpu in self._guards.keys() - gpus:
            self._guards.pop(gpu).end()
        for gpu in self._missed.keys() - gpus:
            del self._missed[gpu]
        return is_new

    def actors(self) -> list[Any]:
        return [actor for guard in self._guards.values() for actor in guard.actors]

    def refs(self) -> list[Any]:
        return [guard.asked for guard in self._guards.values() if guard.asked is not None]

    def collect(self, ref: Any) -> None:
        for gpu, guard in list(self._guards.items()):
            if guard.asked == ref:
                had_it = guard.state == "holds"
                guard.collect()
                if guard.state == "gone":
                    self._let_go(gpu, was_missed=not had_it)  # its node is gone, most likely, where it never had it

    def seek(self) -> bool:
        """Goes on with it. Whether all that can be had are held."""
        seeking = self._seeking()
        if seeking is not None and self._clock.now - self._since_s > SEEK_S:
            log.warning("%s cannot be held back now: it is somebody else's", seeking)
            self._guards[seeking].end()
            self._let_go(seeking, was_missed=True)
            seeking = None
        ahead = sorted(gpu for gpu in self._wanted - self._guards.keys() if self._is_due(gpu))
        if ahead and seeking is None:
            self._since_s = self._clock.now
            self._guards[ahead[0]] = self._guard(ahead[0])
        return self._seeking() is None

    def _seeking(self) -> Gpu | None:
        return next((gpu for gpu, guard in self._guards.items() if guard.state == "seeks"), None)

    def _is_due(self, gpu: Gpu) -> bool:
        return gpu not in self._missed or self._clock.now - self._missed[gpu] > AGAIN_S

    def _let_go(self, gpu: Gpu, *, was_missed: bool) -> None:
        del self._guards[gpu]
        if was_missed:
            self._missed[gpu] = self._clock.now
