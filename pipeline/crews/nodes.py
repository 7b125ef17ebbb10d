"""Which nodes there are and what is to be kept off them, as Ray says. Ray's private corners are used in here alone."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.client import ray as client

from pipeline.fleet import Gpu

NODE_LABEL = "ray.io/node-id"
Resources = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """At one moment."""

    alive: Mapping[str, Resources]  # by id
    draining: frozenset[str] = frozenset()

    @property
    def staying(self) -> dict[str, Resources]:
        return {node: have for node, have in self.alive.items() if node not in self.draining}


def look() -> Nodes:
    """Two questions to the head, a millisecond each."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}
    return Nodes(alive=alive, draining=frozenset(_draining()) & frozenset(alive))


def _draining() -> Collection[str]:
    if _from_afar():
        return ()
    return ray._private.state.state.get_draining_nodes()


def node_of(actor: Any) -> str | None:
    """Where Ray has put it, even when it is dead already. None: nowhere yet."""
    address = _actor(actor).get("Address", {})
    node = address.get("NodeID", "") if address.get("IPAddress") else ""  # without it, the node that is asked for room
    return node if node.strip("f") else None  # "no node" is all f


def is_alive(actor: Any) -> bool:
    return bool(_actor(actor).get("State", "DEAD") != "DEAD")


def _actor(actor: Any) -> dict[str, Any]:
    if _from_afar():
        return {}
    return ray._private.state.actors(actor._actor_id.hex()) or {}


def _from_afar() -> bool:
    """Over ray:// there is no way to ask."""
    return bool(client.is_connected())  # type: ignore[no-untyped-call]


def kept_off(nodes: Nodes, *, avoided: Collection[str], fits: Callable[[Sequence[Resources]], bool]) -> frozenset[str]:
    """Living nodes that a crew is not to be started on: all of `avoided` and of those that drain, if it fits without.

    Else those that drain, else none: a slow run is better than none.
    """
    for off in (nodes.draining | frozenset(avoided), nodes.draining):
        if fits([have for node, have in nodes.alive.items() if node not in off]):
            return off & frozenset(nodes.alive)
    return frozenset()


def held_back(nodes: Nodes, gpus: Collection[Gpu], *, fits: Callable[[Sequence[Resources]], bool]) -> frozenset[Gpu]:
    """Cards of living nodes that nobody is to get: all of them, as long as a crew fits without."""
    held: set[Gpu] = set()
    for gpu in sorted(each for each in gpus if each.node in nodes.alive):
        counts = Counter(each.node for each in (*held, gpu))
        rest = [{**have, "GPU": have.get("GPU", 0) - counts[node]} for node, have in nodes.alive.items()]
        if fits(rest):
            held.add(gpu)
    return frozenset(held)


def holds(bundle: Resources, count: int, *, together: bool) -> Callable[[Sequence[Resources]], bool]:
    """Whether nodes have so many bundles, on one node or on all of them together."""

    def fits(nodes: Sequence[Resources]) -> bool:
        rooms = [min(int(have.get(name, 0) // need) for name, need in bundle.items()) for have in nodes]
        return (max(rooms, default=0) if together else sum(rooms)) >= count

    return fits


def selector(off: Collection[str]) -> dict[str, str]:
    """In the words of Ray's label selectors."""
    return {NODE_LABEL: f"!in({','.join(sorted(off))})"} if off else {}


class NodeWatch:
    """The nodes at the last look, and those that somebody wants avoided."""

    def __init__(self) -> None:
        self.nodes = look()
        self.avoided: frozenset[str] = frozenset()

    def look(self) -> frozenset[str]:
        """Looks again. Ids of nodes that have joined since."""
        before, self.nodes = self.nodes, look()
        return frozenset(self.nodes.alive) - frozenset(before.alive)

    def off(self, bundle: Resources, count: int = 1, *, together: bool = True) -> frozenset[str]:
        """Where a crew of so many bundles is not to be started now."""
        return kept_off(self.nodes, avoided=self.avoided, fits=holds(bundle, count, together=together))
