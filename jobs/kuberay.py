"""`cluster=kuberay` of `submit` and `nightly`: their words become an object that is printed as YAML or given away."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import yaml

from jobs.elsewhere import TYPED, run_name, there_already
from jobs.typed import build
from model.placing import Placing
from pipeline.again import Asked
from pipeline.errors import ConfigError
from pipeline.kuberay.applying import apply_object, create_job
from pipeline.kuberay.objects import Versions, Work, ray_cron_job, ray_job, workers
from pipeline.kuberay.settings import KubernetesSettings
from pipeline.room import wanted
from pipeline.settings import ClusterSettings, ParallelSettings

HERE = (
    "dry_run",
    "check",
    "name",
    "python",
    "pass_env",
    "cluster",
    "kubernetes",
)  # keys, or groups of them, that the cluster is not told
GROUPS = ("parallel.groups", "parallel.enlarging_groups")
SAID_THERE = ("cluster.device", "cluster.grows", "cluster.placement_timeout_s", "parallel.groups")
SAID = {"created": "is created", "updated": "is brought up to date"}
PLACES = ("manifest", "inbox", "output", "weights", "findings")


def start_job(values: Mapping[str, Any], asked: Asked) -> int:
    """A RayJob for one `render`, named by its output and the day: the same submitted twice is there already."""
    settings = kubernetes_settings(values)
    made = ray_job(settings, work_of(values, "render", settings), name=asked.name)
    return _give(made, values, asked)


def start_cron_job(values: Mapping[str, Any], *, opens: str, timezone: str) -> int:
    """A RayCronJob for a `nightly` whose window opens at HH:MM of that time zone's wall."""
    settings = kubernetes_settings(values)
    hour, _, minute = opens.partition(":")
    made = ray_cron_job(
        settings,
        work_of(values, "nightly", settings),
        name=run_name(values["output"], values["name"]),
        schedule=f"{int(minute)} {int(hour)} * * *",
        timezone=timezone,
    )
    return _give(made, values, None)


def kubernetes_settings(values: Mapping[str, Any]) -> KubernetesSettings:
    return build(KubernetesSettings, values["kubernetes"], at="kubernetes")


def work_of(values: Mapping[str, Any], command: str, settings: KubernetesSettings) -> Work:
    """The words that the cluster hears: those typed, and what follows from its being one that grows.

    ConfigError for what its workers would never hold: there, it would be waited for until a timeout.
    """
    _check_places(values)
    cluster = build(ClusterSettings, values["cluster"], at="cluster")
    parallel = build(ParallelSettings, values["parallel"], at="parallel")
    gpus = 0 if cluster.device == "cpu" else _gpus(parallel, settings)
    placing = build(Placing, values["placing"], at="placing")
    wants = wanted(parallel, cluster, device="cuda" if gpus else "cpu", placing=placing)
    most = wants.check(workers(settings, gpus=gpus), node="worker")
    asked = (parallel.groups, parallel.enlarging_groups) if placing.stages == "apart" else (parallel.groups,)
    if len(asked) > 1 and None in asked:
        raise ConfigError(f"{' and '.join(GROUPS)}: say both with placing=apart; the workers hold {most} together")
    groups = [count or (most if gpus else 1) for count in asked]
    if sum(groups) > most:
        names, counts = " and ".join(GROUPS[: len(groups)]), " and ".join(map(str, groups))
        is_ = "are" if len(groups) > 1 else "is"
        raise ConfigError(f"{names} {is_} {counts}, expected at most {most}, which is what the workers hold")
    there = {
        "cluster": "ray",
        "cluster.device": "cuda" if gpus else "cpu",
        "cluster.grows": "true",
        "cluster.placement_timeout_s": f"{cluster.placement_timeout_s:g}",
        "parallel.groups": str(groups[0]),
    }
    typed = [word for word in values[TYPED] if not _stays(word.partition("=")[0])]
    words = (command, *typed, *(f"{key}={value}" for key, value in there.items()))
    return Work(words=words, gpus=gpus, versions=Versions(happyhorse=version("happyhorse"), ray=version("ray")))


def _stays(key: str) -> bool:
    return key in HERE or key in SAID_THERE or key.startswith("kubernetes.")


def _gpus(parallel: ParallelSettings, settings: KubernetesSettings) -> int:
    """Of a worker: whole groups."""
    if parallel.tp is None:
        raise ConfigError(
            "parallel=auto looks at cards, and cluster=kuberay begins with none; say parallel=tp1, tp2 ..."
        )
    gpus = settings.gpus_per_worker or parallel.tp
    if gpus % parallel.tp:
        raise ConfigError(
            f"kubernetes.gpus_per_worker is {gpus}, expected a multiple of a group's ranks ({parallel.tp})"
        )
    return gpus


def _check_places(values: Mapping[str, Any]) -> None:
    """ConfigError for what pods cannot reach."""
    if values["address"] is not None:
        raise ConfigError("address= is that of a cluster which is there; cluster=kuberay makes one")
    for key in PLACES:
        place = values.get(key)
        if place not in (None, "builtin") and ("://" not in place or place.startswith("file://")):
            raise ConfigError(f"{key}={place} is on this machine, expected s3://..., which pods can reach")


def _give(made: dict[str, Any], values: Mapping[str, Any], asked: Asked | None) -> int:
    """`asked`: of a RayJob."""
    if values["dry_run"]:
        print(yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=100), end="")
        return 0
    given = create_job(made, asked) if asked is not None else apply_object(made)
    kind, namespace = made["kind"], made["metadata"]["namespace"]
    said = there_already(given.status, asked) if given.how == "there" and asked is not None else SAID[given.how]
    print(f"{kind} {given.name} in namespace {namespace} {said}")
    print(f"kubectl get {kind.lower()} {given.name} -n {namespace}    # how it stands")
    print(f"results come to {values['output'].rstrip('/')}")
    return 0
