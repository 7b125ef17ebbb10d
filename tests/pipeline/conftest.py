"""What tests of whole outputs share: files made once, and a finished output of four clips to look at or to damage."""

from pathlib import Path

import pytest

from pipeline.store import open_store
from tests.outputs import Media, Output, finish_output, make_media


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Media:
    return make_media(tmp_path_factory.mktemp("media"))


def finished_at(place: str, media: Media, folder: Path) -> Output:
    store = open_store(f"{place}/out")
    scratch = folder / "scratch"
    scratch.mkdir()
    return Output(store, finish_output(store, media, scratch), media, scratch)


@pytest.fixture
def output(media: Media, tmp_path: Path) -> Output:
    """On disk."""
    return finished_at(str(tmp_path), media, tmp_path)


@pytest.fixture(params=["disk", "moto", pytest.param("swift", marks=pytest.mark.s3)])
def anywhere(request: pytest.FixtureRequest, media: Media, tmp_path: Path) -> Output:
    """On disk and on both S3 servers in turn."""
    place = str(tmp_path) if request.param == "disk" else request.getfixturevalue(f"{request.param}_s3")
    return finished_at(place, media, tmp_path)
