"""RayJobs and RayCronJobs against KubeRay's own schemas, unknown fields refused; and what they are to say."""

import copy
import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.compose import compose_values
from jobs.elsewhere import run_name
from jobs.kuberay import kubernetes_settings
from jobs.words import read_words
from pipeline.errors import ConfigError
from pipeline.kuberay.objects import COMMAND_VARIABLE, Versions, Work, ray_cron_job, ray_job
from pipeline.kuberay.settings import KubernetesSettings
from tests.pipeline.kuberay.crds import problems

WORK = Work(words=("render", "manifest=s3://b/m"), gpus=2, versions=Versions(happyhorse="0.1.0", ray="2.60.0"))
NOTHING = KubernetesSettings()
EVERYTHING = KubernetesSettings(
    namespace="films",
    image="registry.example.com/happyhorse@sha256:" + "0a" * 32,
    pull_secret="registry",
    secret=None,
    service_account="renderer",
    gpu_nodes=("cloud.google.com/gke-accelerator=nvidia-h100-80gb", "zone=a"),
    deadline_s=3600,
    new_clusters=0,
    keep_s=0,
    auth="disabled",
)
FREE = {"labels", "rayStartParams", "nodeSelector", "limits", "requests"}  # maps whose keys are the user's


def job(settings: KubernetesSettings = NOTHING, work: Work = WORK) -> dict[str, Any]:
    return ray_job(settings, work, name="happyhorse-x")


def cron_job(settings: KubernetesSettings = NOTHING) -> dict[str, Any]:
    return ray_cron_job(settings, WORK, name="happyhorse-x", schedule="0 22 * * *", timezone="Europe/Berlin")


@pytest.mark.parametrize("settings", [NOTHING, EVERYTHING], ids=["defaults", "everything"])
def test_kuberay_knows_every_field(settings: KubernetesSettings) -> None:
    assert problems(job(settings)) == []
    assert problems(cron_job(settings)) == []
    assert problems(job(settings, Work(words=("render",), gpus=0, versions=WORK.versions))) == []


def key_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every field whose name is Kubernetes' own."""
    if isinstance(value, dict) and (not path or path[-1] not in FREE):
        for key, each in value.items():
            yield (*path, key)
            yield from key_paths(each, (*path, key))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from key_paths(each, (*path, place))


@pytest.mark.parametrize("made", [job(EVERYTHING), cron_job()], ids=["RayJob", "RayCronJob"])
def test_any_misspelt_field_is_caught(made: dict[str, Any]) -> None:
    paths = [path for path in key_paths(made) if path not in (("kind",), ("apiVersion",))]
    assert len(paths) > 60
    for *parents, key in paths:
        damaged = copy.deepcopy(made)
        place = damaged
        for parent in parents:
            place = place[parent]
        place[f"{key[:-1]}{key[-1]}x"] = place.pop(key)
        assert problems(damaged), f"{'/'.join(map(str, parents))}/{key}x"


def test_a_wrong_type_is_caught() -> None:
    made = job()
    made["spec"]["backoffLimit"] = "2"
    assert problems(made) == ["spec/backoffLimit: '2' is not of type 'integer'"]


def groups(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {group["groupName"]: group for group in made["spec"]["rayClusterSpec"]["workerGroupSpecs"]}


def containers(made: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = made["spec"]["rayClusterSpec"]
    pods = [each["template"]["spec"] for each in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return [container for pod in pods for container in pod["containers"]]


def test_workers_come_when_they_are_wanted() -> None:
    made = job(KubernetesSettings(max_gpu_workers=7))
    assert made["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    for name, most in (("gpu", 7), ("cpu", 2)):
        group = groups(made)[name]
        assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (0, 0, most)
    worker = groups(made)["gpu"]["template"]["spec"]
    assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert worker["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert made["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert "gpu" not in groups(job(work=Work(words=(), gpus=0, versions=WORK.versions)))


def test_secrets_are_named_and_never_held() -> None:
    for container in containers(job()):
        assert container["envFrom"] == [{"secretRef": {"name": "happyhorse-storage"}}]
        assert {each["name"] for each in container.get("env", [])} <= {COMMAND_VARIABLE}
    assert all("envFrom" not in container for container in containers(job(EVERYTHING)))


def test_pods_are_as_asked() -> None:
    pod = groups(job(EVERYTHING))["gpu"]["template"]["spec"]
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "zone": "a"}
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["serviceAccountName"] == "renderer"
    assert {each["image"] for each in containers(job(EVERYTHING))} == {EVERYTHING.image}
    assert {each["image"] for each in containers(job())} == {"happyhorse:0.1.0"}


def test_a_new_cluster_is_counted_and_no_submitter_is_retried() -> None:
    spec = job(KubernetesSettings(new_clusters=5, deadline_s=60))["spec"]
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["submissionMode"]) == (5, 60, "HTTPMode")
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["rayClusterSpec"]["rayVersion"] == "2.60.0"


def test_a_cron_job_holds_the_same_job() -> None:
    made = cron_job()
    assert (made["spec"]["schedule"], made["spec"]["timeZone"]) == ("0 22 * * *", "Europe/Berlin")
    assert made["spec"]["jobTemplate"] == job()["spec"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=4))
def test_words_come_through_kubernetes_letter_for_letter(words: list[str]) -> None:
    """Which reads $(NAME) in a variable's value as another variable, and $$ as $."""
    made = job(work=Work(words=(*words, "where=a > $(HOME) and b == '$$'"), gpus=1, versions=WORK.versions))
    (variable,) = containers(made)[0]["env"]
    assert "$" not in variable["value"]
    assert json.loads(variable["value"])[:-1] == words
    assert made["spec"]["entrypoint"] == "python -m jobs.in_cluster"


def test_conf_and_the_settings_agree_on_defaults() -> None:
    composed = compose_values("submit", read_words(["manifest=m", "output=o"]))
    assert kubernetes_settings(composed) == KubernetesSettings()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"namespace": "Films"}, "kubernetes.namespace: got 'Films', expected small letters"),
        ({"secret": "a b"}, "kubernetes.secret: got 'a b'"),
        ({"image": "happy horse"}, "kubernetes.image: got 'happy horse'"),
        ({"image": "happyhorse@sha256:12"}, "kubernetes.image"),
        ({"head_memory": "lots"}, "kubernetes.head_memory: got 'lots', expected a quantity such as 64Gi"),
        ({"gpu_nodes": ("a",)}, "kubernetes.gpu_nodes: got 'a', expected a label"),
        ({"max_gpu_workers": 0}, "kubernetes.max_gpu_workers is 0, expected at least 1"),
        ({"new_clusters": -1}, "kubernetes.new_clusters is -1, expected at least 0"),
    ],
)
def test_a_bad_value_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KubernetesSettings(**changes)
    assert said in str(caught.value)


def test_a_name_is_the_same_for_the_same_output_and_day() -> None:
    monday = date(2026, 11, 23)
    name = run_name("s3://studio/To Night!/", None, day=monday)
    assert name == run_name("s3://studio/To Night!/", None, day=monday)
    assert name.startswith("happyhorse-to-night-")
    assert name.endswith("-20261123")
    others = [("s3://other/To Night!/", None, monday), ("s3://studio/To Night!/", "x", monday)]
    assert len({name, *(run_name(where, said, day=day) for where, said, day in others)}) == 3
    assert run_name("s3://studio/a", "evening", day=monday) == run_name("s3://studio/b", "evening", day=monday)


@given(address=st.text(max_size=60), name=st.none() | st.text(min_size=1, max_size=60))
def test_any_name_is_one_that_kubernetes_takes(address: str, name: str | None) -> None:
    made = run_name(address, name, day=date(2026, 11, 23))
    assert len(f"{made}-99") <= 47
    assert made.strip("-") == made
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
