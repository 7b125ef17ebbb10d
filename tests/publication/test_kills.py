"""kill -9 between every two calls to storage of a run in turn: nobody ever sees a half clip, a rerun makes it whole."""

import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue

import pytest

from pipeline.probing import probe
from pipeline.store import PART_BYTES, open_store
from tests.publication.child import Job, work_on_upload
from tests.publication.runs import TIMEOUT_S, assert_sound, assert_whole, records, run, start
from tests.s3_server import S3Server
from tests.storage_proxy import proxied

LEAST_CALLS = {"disk": 50, "moto": 24, "swift": 12}


@pytest.fixture
def quick_disk() -> Iterator[Path]:
    """In memory where there is such a place: kill -9 loses nothing of either, and here fsync takes no time."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="happyhorse-", dir=place) as folder:
        yield Path(folder)


@pytest.mark.parametrize("place", ["disk", *(pytest.param(name, marks=pytest.mark.s3) for name in ("moto", "swift"))])
def test_a_run_may_be_killed_before_any_of_its_calls_to_storage(
    place: str,
    job_at: Callable[[str], Job],
    subtests: pytest.Subtests,
    request: pytest.FixtureRequest,
    quick_disk: Path,
) -> None:
    """On Swift, which is slow, between every two that write: reads leave nothing behind."""
    root = str(quick_disk) if place == "disk" else str(request.getfixturevalue(f"{place}_s3"))
    job = replace(job_at(root), mode=probe(open_store(f"{root}/probed")), reads_count=place != "swift")
    for cut in itertools.count():
        job = replace(job, output=f"{root}/cut-{cut}", cut=cut)
        store = open_store(job.output)
        code, call = run(job)
        if code == 0:
            break  # it has no more calls than that
        with subtests.test(f"{cut}: killed before {call}"):
            assert code == -signal.SIGKILL
            assert_sound(store)
            before = records(store)
            assert run(replace(job, cut=None)) == (0, "")
            assert_whole(job)
            assert records(store) == before or not before
    assert cut > LEAST_CALLS[place]


# The request that is the last thing it does, and whether the object is there then: None, it may.
REQUESTS = {
    "?uploads": False,
    "partNumber=2": False,
    "uploadId": None,  # that ends the upload, whether or not its answer is heard
    "HEAD": True,
}


@pytest.mark.parametrize("last", REQUESTS)
def test_an_upload_in_parts_that_is_killed_is_there_whole_or_not_at_all(
    last: str,
    moto_server: S3Server,
    moto_s3: str,
    job_at: Callable[[str], Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = tmp_path / "one.0badcafe.wav"
    large.write_bytes(os.urandom(PART_BYTES + 1000))
    store = open_store(moto_s3)  # past the proxy
    pids: Queue[int] = Queue()

    def notice(request: str) -> None:
        if last in request and "clips/" in request and (last != "uploadId" or "POST" in request):
            os.kill(pids.get(timeout=TIMEOUT_S), signal.SIGKILL)

    with proxied(moto_server) as proxy:
        proxy.notice = notice
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.server.endpoint_url)
        process, _ = start(replace(job_at(moto_s3), media={"wav": large}), does=work_on_upload)
        pids.put(process.pid or 0)
        process.join(TIMEOUT_S)
    assert process.exitcode == -signal.SIGKILL
    size_bytes = store.head("clips/one.0badcafe.wav")
    assert size_bytes in (None, large.stat().st_size)
    assert REQUESTS[last] in (None, size_bytes is not None)
