"""Crews on nodes that join, are avoided, drain and die; and what is swept of runs that are gone."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION  # type: ignore[attr-defined]
from ray.util.placement_group import placement_group_table, remove_placement_group

from pipeline.crews.group import RenderGroup
from pipeline.crews.placements import names_of, place
from pipeline.crews.ray_fleet import RayFleet
from pipeline.fleet import Done, Event, Gpu, Joined, Lost, Ready
from pipeline.settings import ClusterSettings, ParallelSettings
from pipeline.store import StorageSettings
from tests.cluster.fleets import clip, event_of, fleet_of, render_order, started, workplace
from tests.cluster.runs import LONG, descendants

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("shared_ray")]
NODE_S = 20  # in which a node that died is noticed


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(shared_cluster: Cluster) -> Iterator[None]:
    """Ray counts a node that is gone for some seconds, with its cards: runs of other files would wait for these."""
    yield
    end = time.monotonic() + 3 * NODE_S
    while len([node for node in ray.nodes() if node["Alive"]]) > 1:  # type: ignore[no-untyped-call]
        assert time.monotonic() < end, "nodes are still there"
        time.sleep(0.1)


@contextmanager
def another_node(cluster: Cluster, *, num_cpus: int, num_gpus: int = 0) -> Iterator[Any]:
    node = cluster.add_node(num_cpus=num_cpus, num_gpus=num_gpus, object_store_memory=100_000_000)
    try:
        yield node
    finally:
        if node in cluster.worker_nodes:
            cluster.remove_node(node, allow_graceful=False)


def next_events(fleet: RayFleet, *, timeout_s: float = 60) -> list[Event]:
    """Those of the first turn that has any."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        events = fleet.wait(0.2)
        if events:
            return events
    raise TimeoutError(f"nothing happened within {timeout_s} s")


def drain(cluster: Cluster, node: str) -> None:
    deadline_ms = int((time.time() + 600) * 1000)
    client = GcsClient(address=cluster.gcs_address)
    accepted, why = client.drain_node(node, DRAIN_NODE_REASON_PREEMPTION, "a test", deadline_ms)
    assert accepted, why


def test_crews_follow_the_nodes(shared_cluster: Cluster, weights: Path, tmp_path: Path) -> None:
    head = ray.get_runtime_context().get_node_id()
    order = render_order(weights, clip(steps=LONG))
    with fleet_of(workplace(weights, tmp_path), groups=2, node_period_s=0.2) as fleet:
        with another_node(shared_cluster, num_cpus=3) as first:
            joined = event_of(fleet)
            assert joined == Joined(crew_id="group-2", stage="render"), "three fit, one more than there were"
            fleet.avoid({head}, ())
            assert started(fleet, "group-2").nodes == (first.node_id,)
            assert started(fleet, "finisher-0").nodes == (first.node_id,)

            fleet.offer("group-2", order)
            drain(shared_cluster, first.node_id)
            (idle,) = next_events(fleet)
            assert isinstance(idle, Lost)
            assert (idle.crew_id, idle.kind, idle.node) == ("finisher-0", "preempted", first.node_id)
            done, lost = next_events(fleet)
            assert isinstance(done, Done)
            assert isinstance(lost, Lost)
            assert (done.crew_id, lost.crew_id, lost.kind) == ("group-2", "group-2", "preempted")
            assert "drains" in lost.reason
            assert started(fleet, "finisher-0").nodes == (head,), "an avoided node is better than none"
            fleet.release("finisher-0")
            assert started(fleet, "finisher-0").nodes == (head,)

        with another_node(shared_cluster, num_cpus=2) as second:
            look(fleet)  # it replaces one that is gone: no more groups fit than before
            assert started(fleet, "group-0").nodes == (second.node_id,)
            fleet.offer("group-0", order)
            shared_cluster.remove_node(second, allow_graceful=False)
            (lost,) = next_events(fleet, timeout_s=NODE_S)
            assert isinstance(lost, Lost)
            assert (lost.crew_id, lost.kind, lost.node) == ("group-0", "preempted", second.node_id)
        assert {info["state"] for info in placement_group_table().values()} == {"REMOVED"}


def look(fleet: RayFleet) -> None:
    """For longer than a node period; nothing happens."""
    for _ in range(4):
        assert fleet.wait(0.1) == []


def test_a_fixed_number_of_crews_grows_only_in_the_place_of_those_that_are_given_up(
    shared_cluster: Cluster, weights: Path, tmp_path: Path
) -> None:
    parallel = ParallelSettings(tp=2, groups=1)
    fleet = RayFleet(
        workplace(weights, tmp_path),
        cluster=ClusterSettings(node_period_s=0.2),
        parallel=parallel,
        groups={"render": 1},
    )
    with another_node(shared_cluster, num_cpus=2):
        look(fleet)
    for crew_id in ("group-0", "finisher-0"):
        fleet.give_up(crew_id)
    look(fleet)
    with another_node(shared_cluster, num_cpus=2):
        joined = next_events(fleet)
        assert joined == [Joined(crew_id="group-1", stage="render"), Joined(crew_id="finisher-1", stage="finish")]
    fleet.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_node_whose_image_has_no_cuda_says_so(shared_cluster: Cluster, weights: Path, tmp_path: Path) -> None:
    place = workplace(weights, tmp_path, device="cuda")
    with another_node(shared_cluster, num_cpus=1, num_gpus=1), fleet_of(place, tp=1) as fleet:
        fleet.start("group-0")
        lost = event_of(fleet)
    assert isinstance(lost, Lost)
    assert (lost.kind, lost.fatal) == ("died", None), "another node may have one"
    assert "NoCard: Ray counts a GPU on " in lost.reason
    assert f"but torch {torch.__version__} sees none there" in lost.reason


def test_what_other_runs_of_this_output_left_is_removed(
    weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def left_by(output: Path, run_id: str) -> Any:
        name = names_of(str(output), StorageSettings(), run_id=run_id).of("group-0")
        placed = place(name, {"CPU": 1.0}, 2, packing="STRICT_PACK", off=())
        ray.get(placed.ready(), timeout=20)
        return placed

    def state(placed: Any) -> str:
        return str(placement_group_table(placed)["state"])

    killed, other = left_by(tmp_path, "run-1"), left_by(tmp_path / "other", "run-1")
    with caplog.at_level(logging.WARNING), fleet_of(workplace(weights, tmp_path, run_id="run-2")):
        end = time.monotonic() + 10
        while state(killed) != "REMOVED":
            assert time.monotonic() < end
            time.sleep(0.05)
    assert state(other) == "CREATED"
    assert "run-1:group-0" in caplog.text
    remove_placement_group(other)


def test_a_place_is_named_by_output_run_and_crew(weights: Path, tmp_path: Path) -> None:
    with fleet_of(workplace(weights, tmp_path, run_id="run-3")) as fleet:
        fleet.start("group-0")
        names = {info["name"] for info in placement_group_table().values() if info["state"] != "REMOVED"}
        assert names == {names_of(str(tmp_path), StorageSettings(), run_id="run-3").of("group-0")}


def test_a_blocked_card_is_held_back_and_groups_get_others(
    shared_cluster: Cluster, weights: Path, tmp_path: Path
) -> None:
    """Ray hands out cards that nobody has; the rank computes on its CPU."""
    with (
        another_node(shared_cluster, num_cpus=2, num_gpus=3) as node,
        fleet_of(workplace(weights, tmp_path), tp=1) as fleet,
    ):
        group = fleet._crews["group-0"]
        assert isinstance(group, RenderGroup)
        group.bundle = {**group.bundle, "GPU": 1.0}
        cards = {Gpu(node=node.node_id, number=str(number)) for number in range(3)}
        bad = max(cards)  # Ray gives those before it first
        fleet.avoid((), {bad})
        (its_own,) = started(fleet, "group-0").gpus
        assert its_own in cards - {bad}
        wait_for_gpus(1.0)
        killed = holder(fleet)
        os.kill(killed, signal.SIGKILL)
        holder(fleet, other_than=killed)
        os.kill(fleet.rank_pids()["group-0"][0], signal.SIGKILL)
        lost = event_of(fleet)
        assert isinstance(lost, Lost)
        assert lost.gpu == its_own
        fleet.avoid((), {bad, its_own})
        assert {*started(fleet, "group-0").gpus} == cards - {bad, its_own}
        fleet.release("group-0")
        fleet.avoid((), {bad})
        wait_for_gpus(2.0)

        finisher = fleet._crews["finisher-0"]
        finisher.bundle = {**finisher.bundle, "GPU": 1.0}
        (its_own,) = started(fleet, "finisher-0").gpus
        assert its_own < bad
        fleet.avoid((), {bad, its_own})
        settle(fleet)
        wait_for_gpus(1.0)  # nobody seeks a card that somebody works on
        fleet.release("finisher-0")
        fleet.avoid((), {bad, its_own})
        fleet.start("finisher-0")
        assert not finisher.is_up(), "it waits for the guard, as a group does"
        ready = event_of(fleet)
        assert isinstance(ready, Ready)
        assert set(ready.gpus) < cards - {its_own}
        settle(fleet)
        wait_for_gpus(1.0)  # one is left for a group: of two that are blocked, one is held back
        fleet.close()
        wait_for_gpus(3.0)


def settle(fleet: RayFleet) -> None:
    """Until no guard seeks."""
    end = time.monotonic() + 20
    while not fleet._guards.seek():
        assert time.monotonic() < end, "a card is sought for 20 s"
        assert fleet.wait(0.1) == []


def wait_for_gpus(free: float) -> None:
    end = time.monotonic() + 20
    while (there := ray.available_resources().get("GPU", 0.0)) != free:  # type: ignore[no-untyped-call]
        assert time.monotonic() < end, f"{there:g} cards are free, expected {free:g}"
        time.sleep(0.1)


def holder(fleet: RayFleet, *, other_than: int = 0) -> int:
    """Process of the only guard, once there is just one."""
    end = time.monotonic() + 20
    while True:
        found = [pid for pid, name in descendants(os.getpid()).items() if name.startswith("ray::Holder")]
        if len(found) == 1 and found[0] != other_than:
            return found[0]
        assert time.monotonic() < end, f"{len(found)} cards are held, expected one by another process"
        assert fleet.wait(0.2) == []
