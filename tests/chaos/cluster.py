"""Several Ray nodes on one machine, each with an address of its own, and the processes that run on them.

Only processes below this one are ever looked at or killed. Ray's own kernel fate sharing ends the nodes with us.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # its own is 15: beside other work on a small machine nothing would move
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    # A frozen node is noticed after about six seconds.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "PYTHONPATH": f"{HERE / 'hook'}:{HERE.parents[1]}",
}
NODE_CPUS = 4  # logical ones: a group of two ranks, and two single actors
STORE_BYTES = 100 << 20
ACTORS = ("RankWorker", "PromptEncoder", "Finisher")
JOIN_S = 180.0  # for a node to be there
BACK_S = 30.0  # for the actors of a run that is over to be gone


@dataclass
class Node:
    """A process of `node.py`, its raylet and all that this started. `address` is 127.0.0.N."""

    starter: psutil.Process
    address: str
    node_id: str = ""  # Ray's; empty until it has joined
    frozen: list[psutil.Process] = field(default_factory=list)

    def processes(self) -> list[psutil.Process]:
        return [self.starter, *children(self.starter)]

    def actors(self, kind: str) -> list[psutil.Process]:
        """Processes of one kind of actor, oldest first. Stopped ones are none to hurt again."""
        found = [each for each in children(self.starter) if title(each).startswith(f"ray::{kind}")]
        return sorted((each for each in found if not is_stopped(each)), key=lambda each: each.pid)

    def ffmpegs(self) -> list[psutil.Process]:
        """Those that are at work."""
        found = [each for each in children(self.starter) if "ffmpeg" in title(each).partition(" ")[0]]
        return sorted(filter(is_running, found), key=lambda each: each.pid)


class Nodes:
    """A head without room for actors, which nothing happens to, and nodes that come and go."""

    def __init__(self) -> None:
        from ray.util import get_node_ip_address  # here: Ray reads its environment when it is imported

        self._log = Path(os.environ["RAY_TMPDIR"]) / "nodes.log"
        self._joined = 0
        self._state: Any = None
        self.started: list[Node] = []
        self.alive: list[Node] = []
        address = str(get_node_ip_address())  # type: ignore[no-untyped-call]
        self.address = f"{address}:{_free_port()}"
        self.head = self._start("head", address, cpus=0)

    def join(self, **environment: str) -> Node:
        """Returns at once; the node is among `alive` from now on, and there when `wait` says so."""
        self._joined += 1
        node = self._start("join", f"127.0.0.{self._joined + 1}", cpus=NODE_CPUS, **environment)
        self.alive.append(node)
        return node

    def _start(self, role: str, address: str, *, cpus: int, **environment: str) -> Node:
        words = ["-m", "tests.chaos.node", role, self.address, address, str(cpus), str(STORE_BYTES)]
        with self._log.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, *words], env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT
            )
        node = Node(psutil.Process(process.pid), address)
        self.started.append(node)
        return node

    def wait(self) -> None:
        """Until all nodes are there."""
        deadline = time.monotonic() + JOIN_S
        while missing := [node.address for node in [self.head, *self.alive] if not self.has_joined(node)]:
            self.tend()
            if time.monotonic() > deadline:
                said = self._log.read_text()[-1000:]
                raise RuntimeError(f"nodes {', '.join(missing)} are not there after {JOIN_S:g} s\n{said}")
            time.sleep(0.2)

    def tend(self) -> None:
        """Starts again what did not come up; to be called now and then."""
        for node in [self.head, *self.alive]:
            if not self.has_joined(node) and not is_running(node.starter):
                role, cpus = ("head", 0) if node is self.head else ("join", NODE_CPUS)
                node.starter = self._start(role, node.address, cpus=cpus).starter

    def has_joined(self, node: Node) -> bool:
        if not node.node_id:
            found = (each for each in self._table() if each["NodeManagerAddress"] == node.address and each["Alive"])
            node.node_id = next((str(each["NodeID"]) for each in found), "")
        return bool(node.node_id)

    def kill(self, node: Node) -> None:
        """The machine is gone: SIGKILL to all of it at once."""
        self.alive.remove(node)
        for each in node.processes():
            send(each, "kill")

    def freeze(self, node: Node) -> None:
        self.alive.remove(node)
        node.frozen = children(node.starter)
        for each in node.frozen:
            send(each, "suspend")

    def wake(self, node: Node) -> None:
        """It finds out by itself that it was given up: its processes are to end without a word of ours."""
        for each in node.frozen:
            send(each, "resume")

    def drain(self, node: Node, *, notice_s: float) -> None:
        """What `ray drain-node` does when a machine is about to be taken away."""
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
        from ray.core.generated import autoscaler_pb2

        reason = autoscaler_pb2.DrainNodeReason.Value(  # type: ignore[attr-defined]
            "DRAIN_NODE_REASON_PREEMPTION"
        )
        deadline_ms = int((time.time() + notice_s) * 1000)
        accepted, why = GcsClient(address=self.address).drain_node(node.node_id, reason, "the storm", deadline_ms)
        if not accepted:
            raise RuntimeError(f"node {node.address} would not drain: {why}")

    def num_objects(self) -> int:
        """In all stores."""
        from ray._private.internal_api import get_memory_info_reply

        reply = get_memory_info_reply(self.state())  # type: ignore[no-untyped-call]
        return int(reply.store_stats.num_local_objects)

    def leftovers(self) -> list[str]:
        """What a run has left in Ray after `BACK_S`: resources in use, placement groups, actors, processes."""
        deadline = time.monotonic() + BACK_S
        while (found := self._leftovers()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    def _table(self) -> list[dict[str, Any]]:
        return list(self.state().node_table()) if _listens(self.address) else []

    def state(self) -> Any:
        """What Ray knows of itself, without being one of its drivers."""
        from ray._private.state import GlobalState
        from ray._raylet import GcsClientOptions  # type: ignore[attr-defined]

        if self._state is None:
            self._state = GlobalState()  # type: ignore[no-untyped-call]
            options = {"allow_cluster_id_nil": True, "fetch_cluster_id_if_nil": False}
            self._state._initialize_global_state(GcsClientOptions.create(self.address, None, **options))
        return self._state

    def _leftovers(self) -> list[str]:
        state = self.state()
        wanted, there = float(NODE_CPUS * len(self.alive)), state.available_resources().get("CPU", 0.0)
        found = [] if there == wanted else [f"{there:g} CPU are free, expected {wanted:g}"]
        groups = state.placement_group_table().values()
        found += [f"placement group {each['name']} is {each['state']}" for each in groups if each["state"] != "REMOVED"]
        actors = state.actor_table(None).values()
        found += [f"actor {each['ActorClassName']} is {each['State']}" for each in actors if each["State"] != "DEAD"]
        return found + [f"process {each.pid} {title(each)}" for each in children() if _is_actor(each)]


@contextmanager
def running_nodes(num_nodes: int) -> Iterator[Nodes]:
    """`ENVIRONMENT` is to be in the environment already, and RAY_TMPDIR."""
    nodes = Nodes()
    try:
        nodes.wait()  # the others ask the head when they start
        for _ in range(num_nodes):
            nodes.join()
            nodes.wait()
        yield nodes
    finally:
        for each in nodes.started:
            for process in each.processes():
                send(process, "kill")


def children(process: psutil.Process | None = None) -> list[psutil.Process]:
    """Of a process or of ours, all the way down."""
    try:
        return list((process or psutil.Process()).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def is_stopped(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def send(process: psutil.Process, verb: str) -> None:
    """kill, suspend or resume; one that is gone already is as good. psutil knows a pid that is used again."""
    with suppress(psutil.NoSuchProcess):
        getattr(process, verb)()


def _is_actor(process: psutil.Process) -> bool:
    return any(title(process).startswith(f"ray::{kind}") for kind in ACTORS) or "ffmpeg" in title(process)


def _listens(address: str) -> bool:
    host, port = address.split(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def _free_port() -> int:
    """Outside of the range in which Ray gives ports to workers."""
    for _ in range(100):
        with socket.create_server(("", 0)) as server:
            port = int(server.getsockname()[1])
        if not 10_002 <= port <= 19_999:
            return port
    raise RuntimeError("no free port outside of 10002-19999")


def enter(folder: Path, **environment: str) -> None:
    """This process's environment, which its nodes and its runs inherit. Before Ray is imported."""
    os.environ.update(ENVIRONMENT | {"RAY_TMPDIR": str(folder)} | environment)
