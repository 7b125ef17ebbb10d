"""`submit cluster=ray` to a real Jobs server, and what is typed after it, as docs/ray.md says."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.runs import QUICK, Caller, records, said, write_manifest
from tests.image_server import body, serve
from tests.image_server import status as status_of
from tests.jobs_server import JobsServer, jobs_server
from tests.manifests import picture

pytestmark = [pytest.mark.e2e, pytest.mark.cluster]
ROWS = [
    {"clip_id": f"clip-{n}", "prompt": "A red circle stays still on a white background.", "duration": 3, "seed": n}
    for n in range(12)
]
LONGEST_S = 240
Type = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def with_token() -> Iterator[JobsServer]:
    with jobs_server(with_token=True) as server:
        yield server


def status(run: Type, output: Path) -> dict[str, Any]:
    done = run("status", f"output={output}", "format=json")
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def is_over(output: Path) -> bool:
    """Without a process for each look."""
    run = output / "run.json"
    return run.exists() and json.loads(run.read_text())["ended_at"] is not None


def wait_for(condition: Callable[[], object], what: str) -> None:
    ends_at = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < ends_at, f"{what} has not come in {LONGEST_S} s"
        time.sleep(1)


def test_a_job_from_submission_to_export(with_token: JobsServer, caller: Caller, tmp_path: Path) -> None:
    """One clip fails, for its picture is there while rows are checked and gone when it is wanted. Then it is mended."""
    run = partial(caller.run, variables=with_token.environment)
    output, is_mended = tmp_path / "out", False

    def answer(request: BaseHTTPRequestHandler) -> None:
        is_there = is_mended or not (output / "run.json").exists()
        (body(picture()) if is_there else status_of(404))(request)

    with serve() as server:
        server.answers["/first.png"] = answer
        framed = ROWS[1] | {"image": server.url("/first.png")}
        manifest = write_manifest(tmp_path / "two.parquet", [ROWS[0], framed])
        words = [f"manifest={manifest}", f"output={output}", f"address={with_token.address}", *QUICK]
        words += [f"images.hosts=[{server.host}]", "images.allow_private=true", "retry.failed=false"]
        first, second = run("submit", *words), run("submit", *words, "check=false")
        other = run("submit", *words, "check=false", "media.crf=30")
        assert first.returncode == 0, said(first)
        assert f"happyhorse status output={output}" in first.stdout
        job = first.stdout.split()[1]
        assert second.returncode == 0, said(second)
        assert f"job {job} is there already" in second.stdout
        assert other.returncode == 4, said(other)
        assert f"job {job} is at work" in other.stderr
        wait_for(lambda: is_over(output), "the end of the job")
        states = status(run, output)["states"]
        assert {name: count for name, count in states.items() if count} == {"SUCCEEDED": 1, "FAILED": 1}
        assert "clip clip-0 is done" in run("logs", f"output={output}").stdout
        assert "answered with 404" in run("logs", f"output={output}", "clip=clip-1").stdout

        is_mended = True
        requeued = run("requeue", f"output={output}", "state=FAILED", "reason=answered with 404")
        assert "clip-1" in requeued.stdout, said(requeued)
        again = run("submit", *words)
        assert f"job {job}-2 is submitted" in again.stdout, said(again)
        wait_for((output / "_SUCCESS.json").exists, "the end of the second job")
    assert {each["clip_id"] for each in records(output).values()} == {"clip-0", "clip-1"}
    exported = run("export", f"output={output}", f"to={tmp_path / 'films'}", "kinds=[mp4]")
    assert exported.returncode == 0, said(exported)
    assert {path.name for path in (tmp_path / "films").glob("*.mp4")} == {"clip-0.mp4", "clip-1.mp4"}


def test_a_job_that_is_canceled_ends_and_what_is_done_stays_done(
    with_token: JobsServer, caller: Caller, tmp_path: Path
) -> None:
    run = partial(caller.run, variables=with_token.environment)
    manifest, output = write_manifest(tmp_path / "many.parquet", ROWS), tmp_path / "out"
    submitted = run("submit", f"manifest={manifest}", f"output={output}", f"address={with_token.address}")
    assert submitted.returncode == 0, said(submitted)
    wait_for(lambda: len(records(output)) > 0, "a first clip")
    canceled = run("cancel", f"output={output}", "reason=enough")
    assert canceled.returncode == 0, said(canceled)
    wait_for(lambda: is_over(output), "the end of the canceled job")
    states = status(run, output)["states"]
    assert states["CANCELED"] > 0
    assert states["SUCCEEDED"] == len(records(output)) > 0
    assert states["SUCCEEDED"] + states["CANCELED"] == len(ROWS)


def test_a_submission_without_the_token_says_what_is_missing(
    with_token: JobsServer, caller: Caller, tmp_path: Path
) -> None:
    run = partial(caller.run, variables={"RAY_AUTH_MODE": "disabled"})
    manifest = write_manifest(tmp_path / "one.parquet", ROWS[:1])
    refused = run("submit", f"manifest={manifest}", f"output={tmp_path / 'out'}", f"address={with_token.address}")
    assert refused.returncode == 5, said(refused)
    assert "it wants a token: RAY_AUTH_MODE=token" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_a_job_on_a_cluster_without_tokens(caller: Caller, tmp_path: Path) -> None:
    manifest, output = write_manifest(tmp_path / "one.parquet", ROWS[:1]), tmp_path / "out"
    with jobs_server(with_token=False) as server:
        run = partial(caller.run, variables=server.environment)
        done = run("submit", f"manifest={manifest}", f"output={output}", f"address={server.address}", *QUICK)
        assert done.returncode == 0, said(done)
        wait_for((output / "_SUCCESS.json").exists, "the end of the job")
