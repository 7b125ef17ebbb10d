"""A RayJob and a RayCronJob as plain dictionaries: pure functions of settings, words and a name. No network.

The words of the command travel as JSON in an environment variable of the head: no shell between here and there reads
them. `jobs/in_cluster.py` runs them there, and turns exit codes into what `backoffLimit` is meant for.
"""

import json
from dataclasses import dataclass
from typing import Any

from pipeline.kuberay.settings import KubernetesSettings

COMMAND_VARIABLE = "HAPPYHORSE_COMMAND"
ENTRYPOINT = "python -m jobs.in_cluster"
CACHE = "/srv/happyhorse/.cache"  # of the image's user; weights from object storage are kept there
LABELS = {"app.kubernetes.io/name": "happyhorse", "app.kubernetes.io/managed-by": "happyhorse"}
Plain = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Versions:
    """Of what submits; the image has the same, else Ray refuses to work together."""

    happyhorse: str
    ray: str


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the cluster is to run: `words` are those of a `happyhorse` command. `gpus`: of a worker, 0: none has any."""

    words: tuple[str, ...]
    gpus: int
    versions: Versions


def ray_job(settings: KubernetesSettings, work: Work, *, name: str) -> Plain:
    """A run in a cluster of its own, gone when the run is over."""
    return _object("RayJob", settings, name, _job_spec(settings, work))


def ray_cron_job(settings: KubernetesSettings, work: Work, *, name: str, schedule: str, timezone: str) -> Plain:
    """The same by the clock. RayCronJob has no rule against overlap: the lease of the output is that rule."""
    spec = {"schedule": schedule, "timeZone": timezone, "jobTemplate": _job_spec(settings, work)}
    return _object("RayCronJob", settings, name, spec)


def workers(settings: KubernetesSettings, *, gpus: int) -> list[dict[str, float]]:
    """What the cluster has when it has grown as far as it may, in Ray's words. `gpus`: of a worker."""
    with_cards: dict[str, float] = {"CPU": settings.gpu_worker_cpus, "GPU": gpus}
    without: dict[str, float] = {"CPU": settings.cpu_worker_cpus}
    return [with_cards] * (settings.max_gpu_workers if gpus else 0) + [without] * settings.max_cpu_workers


def _object(kind: str, settings: KubernetesSettings, name: str, spec: Plain) -> Plain:
    metadata = {"name": name, "namespace": settings.namespace, "labels": dict(LABELS)}
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _job_spec(settings: KubernetesSettings, work: Work) -> Plain:
    return {
        "entrypoint": ENTRYPOINT,
        "submissionMode": "HTTPMode",  # no submitter pod, which may be retried and then ends with 0 (kuberay #3211)
        "backoffLimit": settings.new_clusters,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": settings.keep_s,
        "preRunningDeadlineSeconds": settings.start_timeout_s,
        **({"activeDeadlineSeconds": settings.deadline_s} if settings.deadline_s else {}),
        "rayClusterSpec": _cluster(settings, work),
    }


def _cluster(settings: KubernetesSettings, work: Work) -> Plain:
    # JSON can say a $ without one: Kubernetes would read $(NAME) in the value.
    command = json.dumps(list(work.words), ensure_ascii=False).replace("$", "\\u0024")
    head = _container(settings, work, "ray-head", cpus=settings.head_cpus, memory=settings.head_memory)
    head["env"] = [{"name": COMMAND_VARIABLE, "value": command}]
    return {
        "rayVersion": work.versions.ray,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"idleTimeoutSeconds": settings.idle_s},
        "authOptions": {"mode": settings.auth},
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},  # it hands out work and does none
            "template": {"spec": _pod(settings, head)},
        },
        "workerGroupSpecs": [*([_gpu_group(settings, work)] if work.gpus else []), _cpu_group(settings, work)],
    }


def _gpu_group(settings: KubernetesSettings, work: Work) -> Plain:
    container = _container(
        settings, work, "ray-worker", cpus=settings.gpu_worker_cpus, memory=settings.gpu_worker_memory, gpus=work.gpus
    )
    pod = _pod(settings, container)
    pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    if settings.gpu_nodes:
        pod["nodeSelector"] = dict(label.split("=", 1) for label in settings.gpu_nodes)
    return _group("gpu", pod, most=settings.max_gpu_workers)


def _cpu_group(settings: KubernetesSettings, work: Work) -> Plain:
    container = _container(
        settings, work, "ray-worker", cpus=settings.cpu_worker_cpus, memory=settings.cpu_worker_memory
    )
    return _group("cpu", _pod(settings, container), most=settings.max_cpu_workers)


def _group(name: str, pod: Plain, *, most: int) -> Plain:
    return {
        "groupName": name,
        "replicas": 0,
        "minReplicas": 0,
        "maxReplicas": most,
        "rayStartParams": {},
        "template": {"spec": pod},
    }


def _pod(settings: KubernetesSettings, container: Plain) -> Plain:
    pod: Plain = {"containers": [container], "volumes": [{"name": "cache", "emptyDir": {}}]}
    if settings.service_account:
        pod["serviceAccountName"] = settings.service_account
    if settings.pull_secret:
        pod["imagePullSecrets"] = [{"name": settings.pull_secret}]
    return pod


def _container(settings: KubernetesSettings, work: Work, name: str, *, cpus: int, memory: str, gpus: int = 0) -> Plain:
    resources: Plain = {"cpu": str(cpus), "memory": memory} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    container: Plain = {
        "name": name,
        "image": settings.image or f"happyhorse:{work.versions.happyhorse}",
        "resources": {"requests": resources, "limits": dict(resources)},
        "volumeMounts": [{"name": "cache", "mountPath": CACHE}],
    }
    if settings.secret:
        container["envFrom"] = [{"secretRef": {"name": settings.secret}}]
    return container
