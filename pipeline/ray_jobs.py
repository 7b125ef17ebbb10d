"""Ray's Jobs server: a command is given to a cluster with the code that it runs, once for each name and day."""

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.errors import RenderError
from pipeline.packaging import gather_packages

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
                return _submit(client, submission_id, request)
    raise AssertionError("names do not end")


def _names(name: str) -> Iterator[str]:
    return (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))


def _status(client: JobSubmissionClient, submission_id: str) -> JobStatus | None:
    """None: there is no such job."""
    return next((job.status for job in client.list_jobs() if job.submission_id == submission_id), None)


def _submit(client: JobSubmissionClient, submission_id: str, request: JobRequest) -> Submitted:
    with tempfile.TemporaryDirectory(prefix="happyhorse-") as folder:
        gather_packages(Path(folder))
        client.submit_job(
            entrypoint=request.entrypoint,
            submission_id=submission_id,
            runtime_env={"working_dir": folder, "env_vars": dict(request.environment)},
            metadata={"name": request.name},
        )
    return Submitted(submission_id=submission_id, how="submitted", status=JobStatus.PENDING.value)


@contextmanager
def _translated(address: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:  # what requests raises is an OSError
        text = " ".join(str(error).split())
        if "401" in text or "403" in text or "authentication" in text.lower():
            text = f"it wants a token: RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH ({text})"
        raise JobsServerError(f"the Jobs server at {address} did not take the job: {text}") from error
