"""One encoded clip, and jobs that publish it somewhere."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.media import probe_mp4
from pipeline.store import StorageSettings
from tests import frames
from tests.clips import make_clip
from tests.manifests import write
from tests.publication.child import Job

REACHING = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    shape = make_clip().shape
    sound = frames.tone(shape)
    return frames.encode(tmp_path_factory.mktemp("encoded"), frames.moving(shape), shape=shape, waveform=sound)


@pytest.fixture
def job_at(encoded: dict[str, Path], tmp_path: Path) -> Callable[[str], Job]:
    """A job for an output, which is reached as from this process."""
    manifest = write(tmp_path, {"clip_id": ["one"], "prompt": ["a red ball"]})

    def make(output: str) -> Job:
        return Job(
            manifest=manifest,
            output=output,
            environment={name: os.environ[name] for name in REACHING if name in os.environ},
            media=encoded,
            probe=probe_mp4(encoded["mp4"]),
            storage=StorageSettings(),
        )

    return make
