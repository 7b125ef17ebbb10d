"""What a cluster has room for: on which devices a run works, and with how many groups. Pure."""

import math
from collections.abc import Mapping, Sequence

from model.placing import RESIDENT, Placing
from pipeline.errors import ConfigError
from pipeline.settings import ClusterSettings, ParallelSettings


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
