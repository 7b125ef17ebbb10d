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

from pipeline.crew import Crew, EncoderCrew, FinisherCrew
from pipeline.errors import ConfigError, RenderError
from pipeline.fleet import Event, Order
from pipeline.group import RenderGroup
from pipeline.settings import ClusterSettings, ParallelSettings
from pipeline.types import GroupStatus, Stage
from pipeline.worker import Workplace

LOCAL_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # it listens on this machine alone; a token file of another Ray must not matter
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do by itself one day; it warns until then
}
KNOCK_S = 10.0
log = logging.getLogger(__name__)


class ClusterError(RenderError):
    """There is no Ray to work with."""


@contextmanager
def connect(settings: ClusterSettings, *, parallel: ParallelSettings) -> Iterator[None]:
    """A Ray to work with: the one that this process has already, the one at the address, or one of our own.

    What was started here ends here; what was there before stays as it was.
    """
    if ray.is_initialized():
        yield
        return
    began = time.monotonic()
    try:
        if settings.address is None:
            _start_local(settings, parallel)
        else:
            _knock(settings.address)
            ray.init(address=settings.address, log_to_driver=False, logging_level=logging.ERROR)
    except SystemExit as error:  # while it starts, Ray answers SIGTERM by leaving with 15 and without a word
        raise KeyboardInterrupt from error
    except (OSError, RuntimeError, ValueError) as error:
        where = settings.address or "this machine"
        raise ClusterError(f"no Ray cluster at {where}: {' '.join(str(error).split())}") from error
    log.info("Ray is ready after %.1f s", time.monotonic() - began)
    try:
        yield
    finally:
        ray.shutdown()


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
    parallel: ParallelSettings, cluster: ClusterSettings, *, device: str, nodes: Sequence[Mapping[str, float]]
) -> int:
    """As many as were asked for, or as the nodes hold. At least one: its placement says what is missing."""
    if parallel.groups is not None:
        return parallel.groups
    if device == "cuda":
        room = [math.floor(node.get("GPU", 0)) for node in nodes]
        size = parallel.ranks
    else:
        room = [math.floor(node.get("CPU", 0)) for node in nodes]
        size = parallel.ranks * parallel.threads_per_rank
        for _ in range(cluster.num_encoders + cluster.num_finishers):  # they need a CPU each, from the fullest node
            room[room.index(max(room))] -= 1
    if cluster.placement == "PACK":
        return max(sum(room) // size, 1)
    return max(sum(max(each, 0) // size for each in room), 1)


class RayFleet:
    """Crews as Ray actors. Single-threaded: everything happens inside `wait`, and nothing in it blocks for long."""

    def __init__(self, place: Workplace, *, cluster: ClusterSettings, parallel: ParallelSettings, groups: int) -> None:
        self._cluster = cluster
        self._avoided: frozenset[str] = frozenset()
        crews: list[Crew] = [
            RenderGroup(f"group-{n}", place=place, cluster=cluster, parallel=parallel) for n in range(groups)
        ]
        crews += [EncoderCrew(f"encoder-{n}", place=place, cluster=cluster) for n in range(cluster.num_encoders)]
        crews += [FinisherCrew(f"finisher-{n}", place=place, cluster=cluster) for n in range(cluster.num_finishers)]
        self._crews = {crew.crew_id: crew for crew in crews}

    def crews(self) -> Mapping[str, Stage]:
        return {crew_id: crew.stage for crew_id, crew in self._crews.items()}

    def start(self, crew_id: str, /) -> None:
        self._crews[crew_id].start()

    def offer(self, crew_id: str, order: Order, /) -> None:
        self._crews[crew_id].offer(order)

    def wait(self, timeout_s: float, /) -> list[Event]:
        for crew in self._crews.values():
            crew.poll()
        crew_of = {ref: crew for crew in self._crews.values() for ref in crew.refs()}
        events = [crew_of[ref].collect(ref) for ref in _arrived(list(crew_of), timeout_s)]
        events += [crew.check() for crew in self._crews.values()]
        return [event for event in events if event is not None]

    def avoid(self, nodes: Collection[str], /) -> None:
        self._avoided = frozenset(nodes)

    def release(self, crew_id: str, /) -> None:
        self._crews[crew_id].kill()

    def groups(self) -> tuple[GroupStatus, ...]:
        return tuple(crew.status() for crew in self._crews.values() if isinstance(crew, RenderGroup))

    def rank_pids(self) -> dict[str, dict[int, int]]:
        """Process ids of the ranks that have answered, by group."""
        return {
            crew.crew_id: {rank: health.pid for rank, health in crew.healths.items()}
            for crew in self._crews.values()
            if isinstance(crew, RenderGroup)
        }

    def close(self) -> None:
        for crew in self._crews.values():
            crew.kill()


def node_resources() -> list[dict[str, float]]:
    """CPUs and GPUs of each living node."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


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
