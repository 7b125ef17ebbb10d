"""Connects to Ray, or starts one of our own on this machine, and drives crews there: the Fleet that a real run uses."""

import logging
import math
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from model.placing import RESIDENT, Placing
from pipeline.crews.crew import Crew, Site
from pipeline.crews.deadlines import Attention, StepTimes
from pipeline.crews.group import RenderGroup
from pipeline.crews.guards import Guards
from pipeline.crews.nodes import NodeWatch, held_back, holds, is_alive, look
from pipeline.crews.placements import names_of
from pipeline.crews.solo import EncoderCrew, FinisherCrew
from pipeline.errors import ClusterError, ConfigError
from pipeline.fleet import Event, Gpu, Joined, Lost, Order
from pipeline.settings import ClusterSettings, ParallelSettings
from pipeline.signals import heard_at_last
from pipeline.types import GroupStatus, Stage
from pipeline.worker import Workplace

LOCAL_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # it listens on this machine alone; a token file of another Ray must not matter
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do by itself one day; it warns until then
}
KNOCK_S = 10.0
STANDSTILL_S = 2.0  # one look takes no longer than its timeout and this, or the machine stood still
CLOSING_S = 0.05
log = logging.getLogger(__name__)


@contextmanager
def connect(settings: ClusterSettings, *, parallel: ParallelSettings) -> Iterator[None]:
    """A Ray to work with: the one that this process has already, the one at the address, or one of our own.

    What was started here ends here; what was there before stays as it was. Raises ClusterError.
    """
    if ray.is_initialized():
        yield
        return
    began = time.monotonic()
    try:
        with heard_at_last():
            if settings.address is None:
                _start_local(settings, parallel)
            else:
                _knock(settings.address)
                ray.init(address=settings.address, log_to_driver=False, logging_level=logging.ERROR)
    except SystemExit as error:  # while it starts, Ray answers SIGTERM by leaving with 15 and without a word
        raise KeyboardInterrupt from error
    except Exception as error:  # a node that is slow to start is a bare Exception of Ray's
        raise ClusterError(_told(error, settings.address or "this machine")) from error
    log.info("Ray is ready after %.1f s", time.monotonic() - began)
    try:
        yield
    finally:
        ray.shutdown()


def _told(error: Exception, where: str) -> str:
    """In one line; Ray names both versions where they differ, its own or Python's."""
    before, trace, after = str(error).partition("Traceback (most recent call last):")  # of its server's
    said = " ".join((before + after.strip().rpartition("\n")[2] if trace else before).split())
    if said.startswith("Version mismatch"):
        return f"the Ray cluster at {where} works with its own version alone: {said}"
    if "resolve node to connect to" in said:
        return f"this machine is no node of the Ray cluster at {where}: run it on one, or say address=ray://HOST:10001"
    return f"no Ray cluster at {where}: {said}"


def _knock(address: str) -> None:
    """Raises OSError where nobody listens at host:port; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


def _start_local(settings: ClusterSettings, parallel: ParallelSettings) -> None:
    for name, value in LOCAL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray.init(
        address="local",
        num_cpus=_local_cpus(settings, parallel),
        object_store_memory=settings.object_store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _local_cpus(settings: ClusterSettings, parallel: ParallelSettings) -> int:
    """Logical ones: as many as there are actors, whatever the machine has, for they take turns on a laptop."""
    num_groups = parallel.groups or 1
    if parallel.groups is None and settings.device != "cpu":
        import torch

        num_groups = max(torch.cuda.device_count() // parallel.ranks, 1)
    return num_groups * parallel.ranks * parallel.threads_per_rank + settings.num_encoders + settings.num_finishers


def choose_device(settings: ClusterSettings, nodes: Sequence[Mapping[str, float]]) -> str:
    """cpu or cuda. ConfigError where cards are asked for and there are none."""
    has_gpus = any(node.get("GPU", 0) >= 1 for node in nodes) or (settings.grows and settings.device == "cuda")
    if settings.device == "cuda" and not has_gpus:
        raise ConfigError("cluster.device is cuda, but no node of the cluster has a GPU")
    return "cuda" if has_gpus and settings.device != "cpu" else "cpu"


def count_groups(
    parallel: ParallelSettings,
    cluster: ClusterSettings,
    *,
    device: str,
    nodes: Sequence[Mapping[str, float]],
    placing: Placing = RESIDENT,
) -> int:
    """As many as were asked for, or as the nodes hold. At least one: its placement says what is missing."""
    if parallel.groups is not None:
        return parallel.groups
    solo = [placing.encoder_cards] * cluster.num_encoders + [placing.finisher_cards] * cluster.num_finishers
    cpus = _groups(nodes, "CPU", [1] * len(solo), parallel.ranks * parallel.threads_per_rank, cluster)
    if device != "cuda":
        return max(cpus, 1)
    return max(min(_groups(nodes, "GPU", solo, parallel.ranks, cluster), cpus), 1)


def _groups(
    nodes: Sequence[Mapping[str, float]], resource: str, solo: Sequence[int], size: int, cluster: ClusterSettings
) -> int:
    """That hold `size` of a resource each, beside encoders and finishers, which take theirs from the fullest nodes."""
    room = [math.floor(node.get(resource, 0)) for node in nodes]
    for count in solo:
        room[room.index(max(room))] -= count
    if cluster.placement == "PACK":
        return sum(room) // size
    return sum(max(each, 0) // size for each in room)


class RayFleet:
    """Crews as Ray actors. Single-threaded: everything happens inside `wait`, and nothing in it blocks for long."""

    def __init__(self, place: Workplace, *, cluster: ClusterSettings, parallel: ParallelSettings, groups: int) -> None:
        names = names_of(place.output, place.storage, run_id=place.run_id)
        names.sweep()
        self._parallel = parallel
        self._site = Site(place=place, cluster=cluster, names=names, watch=NodeWatch(), clock=Attention())
        self._times = StepTimes(cluster)
        self._crews: dict[str, Crew] = {}
        self._given_up: set[str] = set()
        self._guards = Guards(self._site.clock)
        self._avoided: frozenset[Gpu] = frozenset()
        self._delayed: dict[str, None] = {}  # groups to be started when all guards have their cards
        self._add({"render": groups, "encode": cluster.num_encoders, "finish": cluster.num_finishers})
        self._looked_s = time.monotonic()

    def _add(self, wanted: Mapping[Stage, int]) -> list[Crew]:
        """What is missing of so many crews that are not given up."""
        before = len(self._crews)
        for stage, count in wanted.items():
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
        return RenderGroup(f"group-{number}", site=self._site, parallel=self._parallel, times=self._times)

    def crews(self) -> Mapping[str, Stage]:
        return {crew_id: crew.stage for crew_id, crew in self._crews.items()}

    def start(self, crew_id: str, /) -> None:
        crew = self._crews[crew_id]
        if crew.stage != "render" or self._guards.seek():
            crew.start()
        else:
            self._delayed[crew_id] = None

    def _start_delayed(self) -> None:
        if self._guards.seek():
            for crew_id in self._delayed:
                self._crews[crew_id].start()
            self._delayed.clear()

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
        fits = count_groups(self._parallel, cluster, device=place.device, nodes=nodes, placing=place.placing)
        new = self._add({"render": fits, "encode": cluster.num_encoders, "finish": cluster.num_finishers})
        return [Joined(crew_id=crew.crew_id, stage=crew.stage) for crew in new]

    def give_up(self, crew_id: str, /) -> None:
        self.release(crew_id)
        self._given_up.add(crew_id)

    def avoid(self, nodes: Collection[str], gpus: Collection[Gpu], /) -> None:
        self._site.watch.avoided, self._avoided = frozenset(nodes), frozenset(gpus)
        self._hold_back()

    def _hold_back(self) -> None:
        """Has the cards that are to be avoided guarded, but for those that a group works on."""
        groups = [crew for crew in self._crews.values() if isinstance(crew, RenderGroup)]
        idle = self._avoided - {gpu for crew in groups if crew.is_up() for gpu in crew.gpus()}
        fits = holds(groups[0].bundle, self._parallel.ranks, together=groups[0].together)
        if self._guards.hold(held_back(self._site.watch.nodes, idle, fits=fits)):
            for crew in groups:
                if not crew.is_up():
                    crew.kill()  # ranks that wait for a new one keep the place of the dead one, too

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


def node_resources() -> list[Mapping[str, float]]:
    """CPUs and GPUs of each living node that stays."""
    nodes = look()
    return list((nodes.staying or nodes.alive).values())


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
