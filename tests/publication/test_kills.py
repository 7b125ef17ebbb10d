"""kill -9 between every two calls to storage of a run in turn: nobody ever sees a half clip, a rerun makes it whole."""

import itertools
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import probing
from pipeline.media import probe_mp4
from pipeline.store import Store, open_store
from pipeline.verify import verify_output
from tests import frames
from tests.clips import make_clip
from tests.manifests import write
from tests.publication.child import Job, work

PROCESSES = multiprocessing.get_context("forkserver")  # imports once, and forks from where no thread runs yet
PROCESSES.set_forkserver_preload(["tests.publication.child"])
TIMEOUT_S = 60.0
LEAST_CALLS = 25
NAMES = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


def run(job: Job) -> tuple[int | None, str]:
    """The job in a process of its own, to its end: exit code, and the call before which it died."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=work, args=(job, theirs))
    process.start()
    theirs.close()
    process.join(TIMEOUT_S)
    try:
        return process.exitcode, ours.recv()
    except EOFError:
        return process.exitcode, ""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    shape = make_clip().shape
    sound = frames.tone(shape)
    return frames.encode(tmp_path_factory.mktemp("media"), frames.moving(shape), shape=shape, waveform=sound)


@pytest.fixture(params=["disk", *(pytest.param(name, marks=pytest.mark.s3) for name in ("moto", "swift"))])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "disk" else str(request.getfixturevalue(f"{request.param}_s3"))


@pytest.fixture
def job(place: str, tmp_path: Path, media: dict[str, Path]) -> Job:
    manifest = write(tmp_path, {"clip_id": ["one"], "prompt": ["a red ball"]})
    environment = {name: os.environ[name] for name in NAMES if name in os.environ}
    probe = probe_mp4(media["mp4"])
    mode = probing.probe(open_store(f"{place}/probed"))
    return Job(manifest=manifest, output=place, mode=mode, environment=environment, media=media, probe=probe)


def recorded(store: Store) -> list[str]:
    """The clips that have a record, each as often as it has one."""
    return sorted(entry.key.removeprefix("records/").split(".")[0] for entry in store.list("records"))


def assert_sound(store: Store) -> None:
    """What holds at any moment: every record names files that are there as it says, and no clip has two records."""
    clips = recorded(store)
    assert not clips or verify_output(store) == []
    assert len(clips) == len(set(clips))


def test_a_run_may_be_killed_before_any_of_its_calls_to_storage(
    job: Job, place: str, subtests: pytest.Subtests
) -> None:
    for cut in itertools.count():
        each = replace(job, output=f"{place}/cut-{cut}", cut=cut)
        store = open_store(each.output)
        code, step = run(each)
        if code == 0:
            break  # it has no so many calls
        with subtests.test(f"{cut}: killed before {step}"):
            assert code == -signal.SIGKILL
            assert_sound(store)
            before = [(entry.key, store.get(entry.key)) for entry in store.list("records")]
            assert run(replace(each, cut=None)) == (0, "")
            assert_sound(store)
            assert recorded(store) == ["one"]
            assert before in ([], [(entry.key, store.get(entry.key)) for entry in store.list("records")])
            assert store.head("_SUCCESS.json")
    assert cut > LEAST_CALLS
