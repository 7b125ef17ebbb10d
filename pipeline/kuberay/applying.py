"""Gives an object to Kubernetes, through its official client and the kubeconfig that kubectl uses."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.again import Asked, Known, State, name_or_known
from pipeline.errors import ConfigError, RenderError

Plain = dict[str, Any]
PLURALS = {"RayJob": "rayjobs", "RayCronJob": "raycronjobs"}
MARK = "happyhorse/asked"  # an annotation
ENDED = ("Complete", "Failed", "ValidationFailed")  # jobDeploymentStatus; "Retrying" is a new cluster
TIMEOUT_S = 30
INSTEAD = "; dry_run=true prints the object instead, for kubectl apply -f -"


class KubernetesError(RenderError):
    """Kubernetes cannot be reached, or says no."""


@dataclass(frozen=True, kw_only=True)
class Given:
    name: str
    how: Literal["created", "updated", "there"]  # there: left as it is
    status: str = ""  # what KubeRay says of one that is there


def create_job(made: Plain, asked: Asked) -> Given:
    """A RayJob, unless one of today does the same or has done it; the next one of the day gets a number.

    ConfigError without a client or a kubeconfig; KubernetesError for whatever Kubernetes says; LeaseHeld where one does
    another and is at work.
    """
    with _api() as api, _translated(made):
        found = name_or_known(asked, lambda name: _known(api, made, name))
        if isinstance(found, Known):
            return Given(name=found.name, how="there", status=found.status)
        named = {**made, "metadata": {**made["metadata"], "name": found, "annotations": {MARK: asked.mark}}}
        if _create(api, named):
            return Given(name=found, how="created")
        return Given(name=found, how="there", status="just created")  # somebody was as quick as we are


def apply_object(made: Plain) -> Given:
    """Creates it, or brings one of the same name up to date. Raises as `create_job`."""
    name = made["metadata"]["name"]
    with _api() as api, _translated(made):
        if _create(api, made):
            return Given(name=name, how="created")
        api.patch_namespaced_custom_object(*_place(made), name, made, _request_timeout=TIMEOUT_S)
        return Given(name=name, how="updated")


@contextmanager
def _api() -> Iterator[Any]:
    try:
        from kubernetes import client, config
    except ImportError as error:
        wanted = "cluster=kuberay needs the Kubernetes client (pip install 'happyhorse[kubernetes]')"
        raise ConfigError(wanted + INSTEAD) from error
    try:
        config.load_kube_config(os.environ.get("KUBECONFIG"))  # its own look was when it was imported
    except config.ConfigException as error:
        try:
            config.load_incluster_config()
        except config.ConfigException:
            raise ConfigError(f"no kubeconfig to reach Kubernetes with: {_line(error)}{INSTEAD}") from error
    with client.ApiClient() as session:
        yield client.CustomObjectsApi(session)


@contextmanager
def _translated(made: Plain) -> Iterator[None]:
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise KubernetesError(f"Kubernetes refuses {_named(made)}: {_said(error)}") from error
    except HTTPError as error:
        raise KubernetesError(f"Kubernetes cannot be reached: {_line(error)}") from error


def _create(api: Any, made: Plain) -> bool:
    """False: there is one of that name."""
    from kubernetes.client.exceptions import ApiException

    try:
        api.create_namespaced_custom_object(*_place(made), made, field_validation="Strict", _request_timeout=TIMEOUT_S)
    except ApiException as error:
        if error.status != 409:
            raise
        return False
    return True


def _known(api: Any, made: Plain, name: str) -> Known | None:
    from kubernetes.client.exceptions import ApiException

    try:
        found = api.get_namespaced_custom_object(*_place(made), name, _request_timeout=TIMEOUT_S)
    except ApiException as error:
        if error.status != 404:  # also where Kubernetes knows no RayJobs: then it says so again to whoever creates one
            raise
        return None
    said = found.get("status") or {}
    deployment, job = said.get("jobDeploymentStatus") or "new", said.get("jobStatus") or ""
    state: State = "at work"
    if deployment in ENDED:
        state = "succeeded" if job == "SUCCEEDED" else "failed"
    mark = found["metadata"].get("annotations", {}).get(MARK)
    return Known(name=name, mark=mark, status=job or deployment, state=state)


def _place(made: Plain) -> tuple[str, str, str, str]:
    group, version = made["apiVersion"].split("/")
    return (group, version, made["metadata"]["namespace"], PLURALS[made["kind"]])


def _said(error: Any) -> str:
    """What the server says, in one line; 404 is its way to say that it knows no such kind."""
    if error.status == 404:
        return "it knows no such objects (is the KubeRay operator installed, new enough, and the namespace there?)"
    return f"{error.status} {error.reason}: {_line(error.body or '')}"


def _named(made: Plain) -> str:
    return f"{made['kind']} {made['metadata']['namespace']}/{made['metadata']['name']}"


def _line(said: object) -> str:
    return " ".join(str(said).split())[:500]
