"""Drives crews as Ray actors: the Fleet that a real run uses."""

import logging
import time
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import ray

from pipeline.crews.crew import Crew, Site
from pipeline.crews.deadlines import Attention, StepTimes
from pipeline.crews.group import RenderGroup
from pipeline.crews.guards import SEEK_S, Guards
from pipeline.crews.nodes import NodeWatch, held_back, is_alive
from pipeline.crews.placements import names_of
from pipeline.crews.solo import EncoderCrew, FinisherCrew
from pipeline.fleet import Event, Gpu, Joined, Lost, Order
from pipeline.room import Crews, all_fit, wanted
from pipeline.settings import ClusterSettings, ParallelSettings
from pipeline.shares import shared_out
from pipeline.types import GroupStatus, Stage
from pipeline.worker import Workplace

GROUPS: Mapping[Stage, str] = {"render": "group", "enlarge": "enlarger"}  # what they are called
STANDSTILL_S = 2.0  # one look takes no longer than its timeout and this, or the machine stood still
CLOSING_S = 0.05
log = logging.getLogger(__name__)


class RayFleet:
    """Crews as Ray actors. Single-threaded: everything happens inside `wait`, and nothing in it blocks for long."""

    def __init__(
        self,
        place: Workplace,
        *,
        cluster: ClusterSettings,
        parallel: ParallelSettings,
        groups: Mapping[Stage, int],
        enlarging: float = 0.0,
    ) -> None:
        """`groups` at first, of each stage that has any; those that fit later are shared out by `enlarging`."""
        names = names_of(place.output, place.storage, run_id=place.run_id)
        names.sweep()
        self._parallel = parallel
        self._site = Site(place=place, cluster=cluster, names=names, watch=NodeWatch(), clock=Attention())
        self._enlarging = enlarging
        self._times = {stage: StepTimes(cluster) for stage in GROUPS}
        self._crews: dict[str, Crew] = {}
        self._given_up: set[str] = set()
        self._guards = Guards(self._site.clock)
        self._avoided: frozenset[Gpu] = frozenset()
        self._delayed: dict[str, float] = {}  # crews with cards that wait for guards to have theirs, and since when
        self._add(groups)
        self._looked_s = time.monotonic()

    def _add(self, groups: Mapping[Stage, int]) -> list[Crew]:
        """What is missing of so many groups that are not given up, and of encoders and finishers."""
        before, cluster = len(self._crews), self._site.cluster
        others: dict[Stage, int] = {"encode": cluster.num_encoders, "finish": cluster.num_finishers}
        for stage, count in {**groups, **others}.items():
            same = [crew.crew_id for crew in self._crews.values() if crew.stage == stage]
            missing = count - sum(crew_id not in self._given_up for crew_id in same)
            for number in range(len(same), len(same) + missing):
                crew = self._new(stage, number)
                self._crews[crew.crew_id] = crew
        return list(self._crews.values())[before:]

    def _new(self, stage: Stage, number: int) -> Crew:
        if stage == "encode":
            return EncoderCrew(f"encoder-{number}", site=self._site)
        if stage == "finish":
            return FinisherCrew(f"finisher-{number}", site=self._site)
        name, times = GROUPS[stage], self._times[stage]
        return RenderGroup(f"{name}-{number}", site=self._site, parallel=self._parallel, times=times, stage=stage)

    def crews(self) -> Mapping[str, Stage]:
        return {crew_id: crew.stage for crew_id, crew in self._crews.items()}

    def start(self, crew_id: str, /) -> None:
        crew = self._crews[crew_id]
        if not crew.wants().cards or self._guards.seek():
            crew.start()
        else:
            self._delayed[crew_id] = self._site.clock.now

    def _start_delayed(self) -> None:
        """Of those that wait for guards, all once these have their cards, and whoever has waited long enough."""
        are_held = self._guards.seek()
        for crew_id, since_s in list(self._delayed.items()):
            if are_held or self._site.clock.now - since_s > SEEK_S:
                del self._delayed[crew_id]
                self._crews[crew_id].start()

    def offer(self, crew_id: str, order: Order, /) -> None:
        self._crews[crew_id].offer(order)

    def wait(self, timeout_s: float, /) -> list[Event]:
        began = time.monotonic()
        events = self._watch()
        self._start_delayed()
        for crew in self._crews.values():
            crew.poll()
        crew_of = {ref: crew for crew in self._crews.values() for ref in crew.refs()}
        arrived = _arrived([*crew_of, *self._guards.refs()], 0 if events else timeout_s)
        self._site.clock.looked(time.monotonic() - began, at_most=timeout_s + STANDSTILL_S)
        for ref in arrived:
            if ref in crew_of:
                events += self._collect(crew_of[ref], ref)
            else:
                self._guards.collect(ref)
        checked = [crew.check() for crew in self._crews.values()]
        return events + [event for event in checked if event is not None]

    def _collect(self, crew: Crew, ref: Any) -> list[Event]:
        """An answer, and the end of a crew that was only to finish its order: no other is given to it."""
        event = crew.collect(ref)
        if event is None:
            return []
        if isinstance(event, Lost):
            return [event]
        lost = crew.preempted(self._site.watch.nodes)
        return [event] if lost is None else [event, lost]

    def _watch(self) -> list[Event]:
        """Which nodes have joined, gone, or drain, from time to time."""
        if time.monotonic() - self._looked_s < self._site.cluster.node_period_s:
            return []
        self._looked_s = time.monotonic()
        joined = self._site.watch.look()
        self._hold_back()
        events: list[Event] = self._grow() if joined else []
        lost = [crew.preempted(self._site.watch.nodes) for crew in self._crews.values()]
        return events + [event for event in lost if event is not None]

    def _grow(self) -> list[Event]:
        """As many groups as fit now or were asked for, and other crews in the place of those that were given up."""
        place, cluster = self._site.place, self._site.cluster
        nodes = list(self._site.watch.nodes.staying.values())
        if not nodes:
            return []
        wants = wanted(self._parallel, cluster, device=place.device, placing=place.placing)
        new = self._add(shared_out(wants.room(nodes), self._parallel, enlarging=self._enlarging))
        return [Joined(crew_id=crew.crew_id, stage=crew.stage) for crew in new]

    def give_up(self, crew_id: str, /) -> None:
        self.release(crew_id)
        self._given_up.add(crew_id)

    def avoid(self, nodes: Collection[str], gpus: Collection[Gpu], /) -> None:
        self._site.watch.avoided, self._avoided = frozenset(nodes), frozenset(gpus)
        self._hold_back()

    def _hold_back(self) -> None:
        """Has the cards that are to be avoided guarded, but for those that a crew works on."""
        idle = self._avoided - {gpu for crew in self._crews.values() if crew.is_up() for gpu in crew.gpus()}
        fits = partial(all_fit, self._needed())
        if self._guards.hold(held_back(self._site.watch.nodes, idle, fits=fits)):
            for crew in self._crews.values():
                if isinstance(crew, RenderGroup) and not crew.is_up():
                    crew.kill()  # ranks that wait for a new one keep the place of the dead one, too

    def _needed(self) -> list[Crews]:
        """What cards have to be left for: all that work alone and want some, and a group of each kind."""
        left = [crew for crew_id, crew in self._crews.items() if crew_id not in self._given_up]
        groups = {crew.stage: crew.wants() for crew in left if isinstance(crew, RenderGroup)}
        alone = [crew.wants() for crew in left if not isinstance(crew, RenderGroup)]
        return [*(each for each in alone if each.cards), *groups.values()]

    def release(self, crew_id: str, /) -> None:
        self._delayed.pop(crew_id, None)
        self._crews[crew_id].kill()

    def groups(self) -> tuple[GroupStatus, ...]:
        return tuple(crew.status() for crew in self._crews.values() if isinstance(crew, RenderGroup))

    def rank_pids(self) -> dict[str, dict[int, int]]:
        """Process ids of the ranks that are there, by group."""
        return {
            crew.crew_id: {rank: seat.pid for rank, seat in crew.seats.items()}
            for crew in self._crews.values()
            if isinstance(crew, RenderGroup)
        }

    def close(self) -> None:
        """Waits until nothing of it is left, for so long as is decent."""
        actors = [*self._guards.actors(), *(each for crew in self._crews.values() for each in crew.actors.values())]
        self._guards.hold(frozenset())
        for crew in self._crews.values():
            crew.kill()
        limit_s = self._site.cluster.shutdown_timeout_s
        end = time.monotonic() + limit_s
        while True:
            left = [*self._site.names.left().values(), *filter(is_alive, actors)]
            if not left:
                return
            if time.monotonic() > end:
                log.warning("after %g s %d actors and placement groups are not gone yet", limit_s, len(left))
                return
            time.sleep(CLOSING_S)


def _arrived(refs: list[Any], timeout_s: float) -> list[Any]:
    """All answers that are there, after waiting for the first one at most so long."""
    if not refs:
        time.sleep(timeout_s)
        return []
    first, _ = ray.wait(refs, num_returns=1, timeout=timeout_s, fetch_local=False)
    if not first:
        return []
    arrived, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
    return list(arrived)
