"""Gives an object to Kubernetes, through its official client and the kubeconfig that kubectl uses."""

import os
from typing import Any, Literal

from pipeline.errors import ConfigError, RenderError

Plain = dict[str, Any]
PLURALS = {"RayJob": "rayjobs", "RayCronJob": "raycronjobs"}
TIMEOUT_S = 30
INSTEAD = "; dry_run=true prints the object instead, for kubectl apply -f -"


class KubernetesError(RenderError):
    """Kubernetes cannot be reached, or says no."""


def apply_object(made: Plain) -> Literal["created", "updated", "there"]:
    """A RayJob is created once: `there` is one of the same name, left as it is. A RayCronJob is brought up to date.

    ConfigError without a client or a kubeconfig; KubernetesError for whatever Kubernetes says.
    """
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
        return _apply(client.CustomObjectsApi(session), made)


def _apply(api: Any, made: Plain) -> Literal["created", "updated", "there"]:
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    group, version = made["apiVersion"].split("/")
    place = (group, version, made["metadata"]["namespace"], PLURALS[made["kind"]])
    try:
        try:
            api.create_namespaced_custom_object(*place, made, field_validation="Strict", _request_timeout=TIMEOUT_S)
            return "created"
        except ApiException as error:
            if error.status != 409:
                raise
        if made["kind"] == "RayJob":
            return "there"
        api.patch_namespaced_custom_object(*place, made["metadata"]["name"], made, _request_timeout=TIMEOUT_S)
        return "updated"
    except ApiException as error:
        raise KubernetesError(f"Kubernetes refuses {_named(made)}: {_said(error)}") from error
    except HTTPError as error:
        raise KubernetesError(f"Kubernetes cannot be reached: {_line(error)}") from error


def _said(error: Any) -> str:
    """What the server says, in one line; 404 is its way to say that it knows no such kind."""
    if error.status == 404:
        return "it knows no such objects (is the KubeRay operator installed, new enough, and the namespace there?)"
    return f"{error.status} {error.reason}: {_line(error.body or '')}"


def _named(made: Plain) -> str:
    return f"{made['kind']} {made['metadata']['namespace']}/{made['metadata']['name']}"


def _line(said: object) -> str:
    return " ".join(str(said).split())[:500]
