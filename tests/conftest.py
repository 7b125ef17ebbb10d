"""Order of the tests: quick ones first, so that a mistake shows before Ray, S3 and whole renders are started."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.s3_server import moto_s3, moto_server, swift_s3, swift_server

__all__ = ["moto_s3", "moto_server", "swift_s3", "swift_server"]  # fixtures for all tests
# The same examples in every run; `pytest --hypothesis-profile=default` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")
ORDER = ("s3", "cluster", "slow", "e2e")  # unmarked ones come before all of these


@pytest.fixture(scope="session")
def released_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in the released layout, for every test that only reads it."""
    from tests.released import write_released  # what a machine with torch and pytest alone need not have

    return write_released(tmp_path_factory.mktemp("released"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "released_weights" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")  # it imports diffusers and transformers
    items.sort(key=lambda item: max((n for n, name in enumerate(ORDER, 1) if item.get_closest_marker(name)), default=0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With workers (`-n 2`): the same order, by and large."""
    from tests.sharing_out import InPieces  # it needs xdist

    config.option.loadscopereorder = False
    return InPieces(config, log)
