"""Ray's Jobs server: a command is given to a cluster with the code that it runs, once for each name and day."""

import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.errors import RenderError
from pipeline.packaging import gather_packages

TRIES, RETRY_S = 4, 2.0
ENDED_BADLY = (JobStatus.FAILED, JobStatus.STOPPED)


class JobsServerError(RenderError):
    """Nothing answers there as a Jobs server does, or it says no."""


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    name: str  # its submission id; a second try of the day gets a number behind it
    entrypoint: str  # a shell command, run on the head node in a folder that holds our packages
    environment: Mapping[str, str]  # variables that the job has beside those of the cluster's nodes


@dataclass(frozen=True, kw_only=True)
class Submitted:
    submission_id: str
    how: Literal["submitted", "there"]  # there: it was submitted before, and is at work or has succeeded
    status: str


def submit_job(address: str, request: JobRequest) -> Submitted:
    """Unless a job of that name is at work or has succeeded. One that failed or was stopped is followed by the next.

    Raises JobsServerError.
    """
    with _translated(address):
        client = JobSubmissionClient(address)
        for submission_id in _names(request.name):
            known = _status(client, submission_id)
            if known is not None and known not in ENDED_BADLY:
                return Submitted(submission_id=submission_id, how="there", status=known.value)
            if known is None:
                _submit(client, submission_id, request)
                return Submitted(submission_id=submission_id, how="submitted", status=JobStatus.PENDING.value)
    raise AssertionError("names do not end")


def _names(name: str) -> Iterator[str]:
    return (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))


def _status(client: JobSubmissionClient, submission_id: str) -> JobStatus | None:
    """None: there is no such job."""
    return next((job.status for job in client.list_jobs() if job.submission_id == submission_id), None)


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
                    metadata={"name": request.name},
                )
            except OSError:
                if not tries_left:
                    raise
                time.sleep(RETRY_S)
                if _status(client, submission_id) is None:
                    continue
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
