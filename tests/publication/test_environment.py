"""The disk, the bucket or the credentials go bad before or while a run is at work: one line, nothing half-written.

Once the cause is gone the same run finishes what is left.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.probing import StoreMode
from pipeline.store import StorageSettings, open_store
from pipeline.summary import ENVIRONMENT
from tests.publication.child import Job
from tests.publication.runs import assert_sound, assert_whole, run
from tests.s3_server import S3Server, running_swift
from tests.small_disk import mounted
from tests.storage_proxy import Fault, StorageProxy, proxied

MODE = StoreMode(create="atomic", clock_offset_s=0.0)
FOREVER = 10**9


def assert_refused(job: Job, why: str) -> None:
    assert_told(*run(job), why=why)


def assert_told(code: int | None, said: str, *, why: str) -> None:
    assert code == ENVIRONMENT, said
    assert re.search(why, said), said
    assert "\n" not in said


def test_a_disk_may_be_full_at_any_moment(job_at: Callable[[str], Job], tmp_path: Path) -> None:
    """It grows by less than most files need, so that it is full within each of them in turn."""
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", size="8k") as disk:
        job = replace(job_at(str(disk.path / "out")), mode=MODE)
        store = open_store(job.output)
        for size_kib in range(32, 1000, 24):
            code, said = run(job)
            assert_sound(store)
            assert not list((disk.path / "out").rglob("*#*")), "something half-written was left"
            if code == 0:
                break
            assert_told(code, said, why=r"^cannot write .*: no space left \(")
            disk.remount(f"size={size_kib}k")
        assert size_kib > 200
        assert_whole(job)


def test_a_read_only_disk_is_found_before_anything_is_done(job_at: Callable[[str], Job], tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", size="8m") as disk:
        job = job_at(str(disk.path / "out"))
        disk.remount("ro")
        assert_refused(job, r"^cannot write .*: the file system is read-only \(")
        disk.remount("rw")
        assert run(job) == (0, "")
        assert_whole(job)


def test_a_bucket_may_be_made_later(moto_server: S3Server, moto_s3: str, job_at: Callable[[str], Job]) -> None:
    job = job_at(f"{moto_s3}-later/out")
    assert_refused(job, r"^cannot write s3://.*-later/out/lease/.*: the bucket does not exist \(NoSuchBucket")
    moto_server.create_bucket(f"{moto_s3}-later".removeprefix("s3://"))
    assert run(job) == (0, "")
    assert_whole(job)


@pytest.mark.s3
def test_wrong_credentials_may_be_mended(swift_s3: str, job_at: Callable[[str], Job]) -> None:
    job = job_at(f"{swift_s3}/out")
    wrong = replace(job, environment={**job.environment, "AWS_SECRET_ACCESS_KEY": "guess"})
    assert_refused(wrong, r"^cannot write .*: (the credentials were refused|access denied) \(")
    assert "guess" not in run(wrong)[1]
    assert list(open_store(swift_s3).list()) == []
    assert run(job) == (0, "")
    assert_whole(job)


@pytest.mark.s3
def test_a_clock_that_is_off_by_a_day_may_be_set(swift_s3: str, job_at: Callable[[str], Job], tmp_path: Path) -> None:
    """A server that checks signatures refuses such requests; here it is its clock that is wrong."""
    job = job_at(f"{swift_s3}/out")
    (tmp_path / "swift").mkdir()
    with running_swift(tmp_path / "swift", ahead_s=86_400) as ahead:
        off = replace(job, environment=ahead.environment)
        assert_refused(off, r"^cannot write .*: our clock and storage's are too far apart \(RequestTimeTooSkewed")
    assert run(job) == (0, "")
    assert_whole(job)


@pytest.fixture
def proxy(moto_server: S3Server) -> Iterator[StorageProxy]:
    with proxied(moto_server) as proxy:
        yield proxy


TROUBLE = {
    "the credentials have expired": Fault(what=403, code="ExpiredToken"),
    "no space left": Fault(method="PUT", what=403, code="QuotaExceeded"),
    "the endpoint cannot be reached": Fault(what="drop"),
    "storage is failing": Fault(what=503, code="SlowDown"),
}
EVERY = 7  # of the 26 requests of a run; each trouble begins with another one, so that together they meet most


@pytest.mark.parametrize(("first", "why"), list(enumerate(TROUBLE)))
def test_storage_may_go_bad_at_any_request(
    first: int, why: str, proxy: StorageProxy, moto_s3: str, job_at: Callable[[str], Job]
) -> None:
    for number in itertools.count(first, EVERY):
        job = replace(job_at(f"{moto_s3}/out-{number}"), mode=MODE)
        environment = {**job.environment, "AWS_ENDPOINT_URL": proxy.server.endpoint_url}
        behind = replace(job, environment=environment, storage=StorageSettings(retries=1, backoff_s=0.01))
        with broken_from(proxy, number, TROUBLE[why]):
            code, said = run(behind)
        if len(proxy.asked) <= number:
            break
        assert_sound(open_store(job.output))
        if code != 0:  # it is over by then but for the end of its lease
            without_body = r"^cannot look at s3://.*: access denied \("  # an answer to HEAD is its status alone
            assert_told(code, said, why=rf"^cannot (read|write|list|look at|delete) s3://.*: {why} \(|{without_body}")
            assert run(behind) == (0, "")
        assert_whole(job)
    assert number > 20


@contextmanager
def broken_from(proxy: StorageProxy, number: int, fault: Fault) -> Iterator[None]:
    """All requests of one kind, from the one with this number on."""
    proxy.asked.clear()

    def notice(request: str) -> None:
        if len(proxy.asked) > number and not proxy.faults:
            proxy.faults.append(replace(fault, times=FOREVER))

    proxy.notice = notice
    try:
        yield
    finally:
        proxy.notice = None
        proxy.faults.clear()


def test_a_server_that_ignores_create_only_will_do(
    proxy: StorageProxy, moto_s3: str, job_at: Callable[[str], Job]
) -> None:
    proxy.without = {"if-none-match"}
    job = job_at(f"{moto_s3}/out")
    job = replace(job, environment={**job.environment, "AWS_ENDPOINT_URL": proxy.server.endpoint_url})
    for _ in range(2):
        assert run(job) == (0, "")
        assert_whole(job)
