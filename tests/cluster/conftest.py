"""One Ray for all tests here, as a run starts it for itself, and one set of random weights."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import cluster
from pipeline.settings import ClusterSettings, ParallelSettings
from tests.weights import noise_model, write_weights

ROOM = ParallelSettings(tp=2, groups=2)


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[None]:
    settings = ClusterSettings(object_store_bytes=150_000_000)
    with cluster.connect(settings, parallel=ROOM):
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"), noise_model())
