"""One Ray for all tests here, to which nodes can be added, and one set of random weights."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # on a busy machine; read when Ray is imported

import ray
from ray.cluster_utils import Cluster

from pipeline.cluster import LOCAL_ENVIRONMENT
from tests.weights import noise_model, write_weights

NUM_CPUS = 6  # two groups of two ranks, an encoder and a finisher
STORE_BYTES = 150_000_000
HOOK = Path(__file__).parents[1] / "chaos" / "hook"


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    for name, value in LOCAL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = ":".join([str(HOOK), *([before] if before else [])])  # its workers have faults on demand
    arguments = {"num_cpus": NUM_CPUS, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def shared_ray(shared_cluster: Cluster) -> None:
    """Runs and fleets use the Ray that this process has already."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"), noise_model())
