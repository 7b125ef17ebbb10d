"""What each fault does to a machine, and how it is told from outside that the run has got over it.

A fault is a generator: it is asked again and again until it ends, and notes on its `Hit` when what happened. It looks
at processes and at what the run says, never into it.
"""

import re
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests import storage_proxy
from tests.chaos.cluster import Node, Nodes, is_running, is_stopped, send, title
from tests.chaos.rendering import Render
from tests.chaos.schedule import STORAGE, Fault, Kind
from tests.storage_proxy import StorageProxy

REFUSED_S = 4.0
MINUTE_S = 60.0
NOTICE_S = 25.0  # between the news that a node is taken away and its end
WOKEN_S = 3.0  # after a frozen node was given up it wakes again
GONE_S = 120.0  # for what ran on a woken node to be gone
CREW_OF = {"RankWorker": "group", "PromptEncoder": "encoder", "Finisher": "finisher"}
CREW_HIT = {"rank": "group", "ffmpeg": "finisher", "encoder": "encoder", "finisher": "finisher"}  # a kind's last word
MADE = re.compile(r"/([^/ ]+)\.[0-9a-f]{8}\.mp4")  # in ffmpeg's command line: the clip
RANKS = 2
Steps = Iterator[None]


@dataclass
class Hit:
    """One fault that came. Times are of the monotonic clock; None: not yet, or never."""

    fault: Fault
    what: str = ""
    at_s: float | None = None
    detected_s: float | None = None
    recovered_s: float | None = None

    @property
    def detect_s(self) -> float | None:
        return None if self.detected_s is None or self.at_s is None else self.detected_s - self.at_s

    @property
    def recover_s(self) -> float | None:
        return None if self.recovered_s is None or self.at_s is None else self.recovered_s - self.at_s


@dataclass
class Site:
    """All that a fault can reach. `render` changes when the run is started again."""

    nodes: Nodes
    proxy: StorageProxy
    render: Render
    start_again: Callable[[], None]
    woken: list[Node] = field(default_factory=list)


def stages_of(kind: Kind) -> frozenset[str]:
    """The crews whose losses would be taken for this fault's: no other fault may hit them meanwhile."""
    if kind in STORAGE:
        return frozenset({"storage"})
    _, _, whom = kind.partition("_")
    return frozenset({CREW_HIT[whom]} if whom in CREW_HIT else CREW_OF.values())


def steps(site: Site, hit: Hit) -> Steps:
    return DOES[hit.fault.kind](site, hit)


# Processes.


def _hurt(kind: str, verb: str) -> Callable[[Site, Hit], Steps]:
    def act(site: Site, hit: Hit) -> Steps:
        while not (found := [each for node in site.nodes.alive for each in node.actors(kind)]):
            yield
        victim = _picked(found, hit.fault)
        hit.what = f"{kind} {victim.pid}"
        _begin(hit)
        send(victim, verb)
        yield from _loss(site, hit, {CREW_OF[kind]}, expected=1)

    return act


def _kill_ffmpeg(site: Site, hit: Hit) -> Steps:
    """As a memory killer does. The clip that it was at is there in the end: another attempt made it."""
    while True:
        found = [each for node in site.nodes.alive for each in node.ffmpegs() if MADE.search(title(each))]
        if found:
            victim = _picked(found, hit.fault)
            made = MADE.search(title(victim))
            send(victim, "suspend")
            if made and is_stopped(victim):  # it has not ended just now
                break
            send(victim, "resume")
        yield
    hit.what = f"ffmpeg {victim.pid} of {made[1]}"
    since_s = _begin(hit)
    send(victim, "kill")
    while (told_s := site.render.said_at("ffmpeg ended with code -9", since_s)) is None:
        yield
    hit.detected_s = told_s
    while (done_s := site.render.said_at(f"clip {made[1]} is done", since_s)) is None:
        yield
    hit.recovered_s = done_s


def _kill_driver(site: Site, hit: Hit) -> Steps:
    hit.what = f"driver {site.render.process.pid}"
    since_s = _begin(hit)
    site.render.kill()
    site.start_again()
    while (done_s := site.render.done_at(since_s)) is None:
        yield
    hit.recovered_s = done_s


# Nodes. Whoever goes is followed by another.


def _kill_node(site: Site, hit: Hit) -> Steps:
    node, crews = yield from _busy_node(site, hit)
    _begin(hit)
    site.nodes.kill(node)
    site.nodes.join()
    yield from _loss(site, hit, CREW_OF.values(), expected=crews)


def _stop_node(site: Site, hit: Hit) -> Steps:
    """It sleeps until long after it was given up, wakes, and must leave by itself."""
    node, crews = yield from _busy_node(site, hit)
    _begin(hit)
    site.nodes.freeze(node)
    site.nodes.join()
    yield from _loss(site, hit, CREW_OF.values(), expected=crews)
    yield from _pause(WOKEN_S)
    site.nodes.wake(node)
    end_s = time.monotonic() + GONE_S
    while left := [each for each in node.frozen if is_running(each)]:
        if time.monotonic() > end_s:
            raise RuntimeError(
                f"{GONE_S:g} s after it woke node {node.address} still has {[title(each).strip() for each in left]}"
            )
        yield


def _drain_node(site: Site, hit: Hit) -> Steps:
    """A notice, as clouds give it; at its end the machine is gone, and nothing may be there any more."""
    node, crews = yield from _busy_node(site, hit)
    began_s = _begin(hit)
    site.nodes.drain(node, notice_s=NOTICE_S)
    site.nodes.join()
    yield from _loss(site, hit, CREW_OF.values(), expected=crews)
    while time.monotonic() < began_s + NOTICE_S:
        yield
    hit.what += f", {_crews_on(node)} left at its end"
    site.nodes.kill(node)


def _break_node(site: Site, hit: Hit) -> Steps:
    """What ran on another node finds room only where no rank can compute, until the run has had enough of that."""
    node, crews = yield from _busy_node(site, hit)
    broken = site.nodes.join(HAPPYHORSE_STORM_BROKEN="1")
    while not site.nodes.has_joined(broken):
        yield
    hit.what = f"node {broken.address} in the place of {hit.what}"
    since_s = _begin(hit)
    site.nodes.kill(node)
    while (told_s := site.render.said_at(f"nothing more is started on node {broken.node_id[:8]}", since_s)) is None:
        yield
    hit.detected_s = told_s
    site.nodes.join()
    while len(_lost(site, hit, CREW_OF.values())) < crews or _crews_down(site, hit, CREW_OF.values()):
        yield
    hit.recovered_s = time.monotonic()


def _busy_node(site: Site, hit: Hit) -> Any:
    while not (busy := [node for node in site.nodes.alive if _crews_on(node)]):
        yield
    node = _picked(busy, hit.fault)
    crews = _crews_on(node)
    hit.what = f"node {node.address} with {crews} crews"
    return node, crews


def _crews_on(node: Node) -> int:
    return len(node.actors("RankWorker")) // RANKS + len(node.actors("PromptEncoder")) + len(node.actors("Finisher"))


# Storage.


def _requests(what: storage_proxy.What | int, method: str = "", path: str = "") -> Callable[[Site, Hit], Steps]:
    """Happens to the next few requests."""

    def act(site: Site, hit: Hit) -> Steps:
        times = hit.fault.times
        fault = storage_proxy.Fault(method=method, what=what, path=path, code="ServiceUnavailable", times=times)
        hit.what = f"{fault.times} requests"
        _begin(hit)
        site.proxy.faults.append(fault)
        while fault.times:
            yield
        site.proxy.faults.remove(fault)
        yield from _written(site, hit)

    return act


def _away(seconds: float) -> Callable[[Site, Hit], Steps]:
    def act(site: Site, hit: Hit) -> Steps:
        hit.what = f"{seconds:g} s"
        _begin(hit)
        site.proxy.away(seconds)
        while site.proxy.is_away:
            yield
        yield from _written(site, hit)

    return act


def _written(site: Site, hit: Hit) -> Steps:
    """Until another clip is done."""
    since_s = time.monotonic()
    while (done_s := site.render.done_at(since_s)) is None:
        yield
    hit.recovered_s = done_s


# What all have in common.


def _begin(hit: Hit) -> float:
    hit.at_s = time.monotonic()
    return hit.at_s


def _picked(found: list[Any], fault: Fault) -> Any:
    return found[int(fault.pick * len(found))]


def _pause(seconds: float) -> Steps:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        yield


def _loss(site: Site, hit: Hit, stages: Collection[str], *, expected: int) -> Steps:
    """Until so many crews were lost and all of them work again."""
    assert hit.at_s is not None
    while not (lost := _lost(site, hit, stages)):
        yield
    hit.detected_s = min(lost.values())
    while len(_lost(site, hit, stages)) < expected or _crews_down(site, hit, stages):
        yield
    back = [site.render.ready_at(crew, at_s) for crew, at_s in _lost(site, hit, stages).items()]
    hit.recovered_s = max(at_s for at_s in back if at_s is not None)


def _lost(site: Site, hit: Hit, stages: Collection[str]) -> dict[str, float]:
    """Crew -> when it was lost last since the fault came."""
    assert hit.at_s is not None
    return {loss.crew: loss.at_s for loss in site.render.losses(hit.at_s) if loss.crew.split("-")[0] in stages}


def _crews_down(site: Site, hit: Hit, stages: Collection[str]) -> list[str]:
    lost = _lost(site, hit, stages)
    return [crew for crew, at_s in lost.items() if site.render.ready_at(crew, at_s) is None]


DOES: dict[Kind, Callable[[Site, Hit], Steps]] = {
    "kill_rank": _hurt("RankWorker", "kill"),
    "stop_rank": _hurt("RankWorker", "suspend"),
    "kill_finisher": _hurt("Finisher", "kill"),
    "stop_finisher": _hurt("Finisher", "suspend"),
    "kill_ffmpeg": _kill_ffmpeg,
    "kill_encoder": _hurt("PromptEncoder", "kill"),
    "stop_encoder": _hurt("PromptEncoder", "suspend"),
    "kill_node": _kill_node,
    "stop_node": _stop_node,
    "drain_node": _drain_node,
    "break_node": _break_node,
    "kill_driver": _kill_driver,
    "refuse": _away(REFUSED_S),
    "status_503": _requests(503),
    "time_out": _requests("stall"),
    "lose_answer": _requests("lose", method="PUT", path="/out/"),
    "gone_a_minute": _away(MINUTE_S),
}
