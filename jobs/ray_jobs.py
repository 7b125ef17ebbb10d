"""`submit cluster=ray`: the words of a `render` become a job of a Ray cluster that runs already."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobs.elsewhere import TYPED, there_already
from jobs.typed import build
from pipeline.again import Asked
from pipeline.errors import ConfigError

HERE = ("dry_run", "check", "name", "address", "python", "pass_env", "cluster")  # keys that the cluster is not told
PLACES = ("manifest", "output", "weights", "findings")
ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"  # Ray's own


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    address: str | None
    python: str
    pass_env: tuple[str, ...]
    output: str
    dry_run: bool

    @property
    def server(self) -> str:
        """ConfigError where nobody says it."""
        address = self.address or os.environ.get(ADDRESS_VARIABLE)
        if not address or not address.startswith(("http://", "https://")):
            got = repr(address) if address else "missing"
            raise ConfigError(f"address is {got}, expected that of Ray's Jobs server: http://HOST:8265")
        return address


def check_ray_job(values: Mapping[str, Any]) -> JobSettings:
    """ConfigError for what is missing here, whatever the table holds."""
    own = {key: values[key] for key in ("address", "python", "pass_env", "output", "dry_run")}
    settings = build(JobSettings, own, at="")
    for name in settings.pass_env:
        _variable(name)
    if not settings.dry_run:
        _ = settings.server
    return settings


def submit_ray_job(values: Mapping[str, Any], asked: Asked) -> int:
    settings = check_ray_job(values)
    environment = {name: _variable(name) for name in settings.pass_env}
    words = words_there(values[TYPED])
    entrypoint = shlex.join([settings.python, "-m", "jobs", "render", *words])
    if settings.dry_run:
        shown = {"submission_id": asked.name, "entrypoint": entrypoint, "environment": sorted(environment)}
        print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100), end="")
        return 0
    from pipeline.ray_jobs import JobRequest, submit_job  # Ray: a dry run has no need of it

    request = JobRequest(asked=asked, entrypoint=entrypoint, environment=environment)
    done = submit_job(settings.server, request)
    said = "is submitted" if done.how == "submitted" else there_already(done.status, asked)
    print(f"job {done.submission_id} {said}")
    _say_next(shlex.quote(f"output={place_there(settings.output)}"), done.submission_id, server=settings.server)
    return 0


def words_there(typed: Sequence[str]) -> list[str]:
    """Those of `render`, with places of this machine by their whole path: the job runs in a folder of its own."""
    words = []
    for word in typed:
        key, _, text = word.partition("=")
        if key in PLACES:
            words.append(f"{key}={','.join(map(place_there, text.split(',')))}")
        elif key not in HERE:
            words.append(word)
    return [*words, "cluster=ray"]


def place_there(place: str) -> str:
    is_path = place not in ("builtin", "null") and "://" not in place
    return str(Path(place).absolute()) if is_path else place


def _variable(name: str) -> str:
    if name not in os.environ:
        raise ConfigError(f"pass_env names {name}, which is not set here")
    return os.environ[name]


def _say_next(output: str, job: str, *, server: str) -> None:
    print(f"happyhorse status {output}                 # how it stands")
    print(f"happyhorse logs {output} follow=true       # what it says")
    print(f"happyhorse cancel {output}                 # ends it; what is done stays done")
    print(f"ray job logs {job} --address {server}   # where no run begins: why")
