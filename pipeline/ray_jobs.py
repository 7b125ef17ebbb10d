"""Ray's Jobs server: a command is given to a cluster with the code that it runs, once for each name and day."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from pipeline.again import Asked, Known, State, name_or_known
from pipeline.errors import RenderError
from pipeline.packaging import gather_packages

TRIES, RETRY_S = 4, 2.0
STATES: Mapping[JobStatus, State] = {
    JobStatus.PENDING: "at work",
    JobStatus.RUNNING: "at work",
    JobStatus.SUCCEEDED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.STOPPED: "failed",
}
MARK = "asked"  # in a job's metadata
ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"  # Ray's own


class JobsServerError(RenderError):
    """Nothing answers there as a Jobs server does, or it says no."""


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    asked: Asked  # its name is the submission id; the next one of the day gets a number behind it
    entrypoint: str  # a shell command, run on the head node in a folder that holds our packages
    environment: Mapping[str, str]  # variables that the job has beside those of the cluster's nodes


@dataclass(frozen=True, kw_only=True)
class Submitted:
    submission_id: str
    how: Literal["submitted", "there"]  # there: it was submitted before, and is at work or has done all of it
    status: str


def submit_job(address: str, request: JobRequest) -> Submitted:
    """Unless a job of today does the same or has done it. Raises JobsServerError; LeaseHeld where one does another."""
    with _translated(address):
        client = _client(address)
        submission_id = name_or_known(request.asked, _jobs(client).get)
        if isinstance(submission_id, str):
            _submit(client, submission_id, request)
            return Submitted(submission_id=submission_id, how="submitted", status=JobStatus.PENDING.value)
        return Submitted(submission_id=submission_id.name, how="there", status=submission_id.status)


def _client(address: str) -> JobSubmissionClient:
    """JobsServerError where it is that of another Ray."""
    with _overruling(address):
        client = JobSubmissionClient(address)
    there, here = client._server_ray_version, version("ray")  # it has asked, and has no other way to tell
    if there != here:
        advice = f"install ray=={there} here, or give the cluster {here}"
        raise JobsServerError(f"the cluster at {address} has Ray {there}, and here is {here}: {advice}")
    return client


@contextmanager
def _overruling(address: str) -> Iterator[None]:
    """Ray's client takes an address of the environment instead of the one that it is given."""
    before = os.environ.get(ADDRESS_VARIABLE)
    os.environ[ADDRESS_VARIABLE] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[ADDRESS_VARIABLE]
        else:
            os.environ[ADDRESS_VARIABLE] = before


def _jobs(client: JobSubmissionClient) -> dict[str, Known]:
    return {job.submission_id: _known(job) for job in client.list_jobs() if job.submission_id}


def _known(job: JobDetails) -> Known:
    mark = (job.metadata or {}).get(MARK)
    return Known(name=job.submission_id or "", mark=mark, status=job.status.value, state=STATES[job.status])


def _submit(client: JobSubmissionClient, submission_id: str, request: JobRequest) -> None:
    """Tried again where the answer is lost: a young server hangs up now and then, and a name is taken once."""
    with tempfile.TemporaryDirectory(prefix="happyhorse-") as folder:
        gather_packages(Path(folder))
        for tries_left in reversed(range(TRIES)):
            try:
                client.submit_job(
                    entrypoint=request.entrypoint,
                    submission_id=submission_id,
                    runtime_env={"working_dir": folder, "env_vars": dict(request.environment)},
                    metadata={"name": request.asked.name, MARK: request.asked.mark},
                )
            except OSError:
                if not tries_left:
                    raise
                time.sleep(RETRY_S)
                if submission_id not in _jobs(client):
                    continue
            except RuntimeError:
                if submission_id not in _jobs(client):  # else somebody was as quick as we are
                    raise
            return


@contextmanager
def _translated(address: str) -> Iterator[None]:
    try:
        yield
    except AuthenticationError as error:
        wanted = "it wants a token: RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        raise JobsServerError(f"the Jobs server at {address}: {wanted} ({_first_line(error)})") from error
    except (OSError, RuntimeError, ValueError, RayError) as error:  # what requests raises is an OSError
        raise JobsServerError(f"the Jobs server at {address} did not take the job: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
