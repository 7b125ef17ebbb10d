"""The groups that a cluster is told are as many as its workers hold, by an exhaustive packing that shares no code."""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.compose import compose_values
from jobs.elsewhere import TYPED
from jobs.kuberay import kubernetes_settings, work_of
from jobs.words import read_words
from pipeline.errors import ConfigError
from pipeline.kuberay.objects import ray_job

Worker: TypeAlias = tuple[int, int]  # CPUs and cards that are left
PLACES = ["manifest=s3://studio/tonight.parquet", "output=s3://studio/tonight", "cluster=kuberay"]


@cache
def plain() -> dict[str, Any]:
    return dict(compose_values("submit", read_words(PLACES))) | {TYPED: PLACES}


def values_with(**changes: dict[str, Any]) -> dict[str, Any]:
    values = copy.deepcopy(plain())
    for group, words in changes.items():
        values[group] |= words
    return values


def told(values: dict[str, Any]) -> int:
    """`parallel.groups` as the cluster hears it."""
    words = work_of(values, "render", kubernetes_settings(values)).words
    (groups,) = [word.partition("=")[2] for word in words if word.startswith("parallel.groups=")]
    return int(groups)


def workers_of(values: dict[str, Any]) -> tuple[Worker, ...]:
    """As the object has them."""
    kubernetes = kubernetes_settings(values)
    spec = ray_job(kubernetes, work_of(values, "render", kubernetes), name="x")["spec"]["rayClusterSpec"]
    found = []
    for group in spec["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        found += [(int(limits["cpu"]), int(limits.get("nvidia.com/gpu", 0)))] * group["maxReplicas"]
    return tuple(sorted(found))


def placed(workers: tuple[Worker, ...], cards: tuple[int, ...]) -> Iterator[tuple[Worker, ...]]:
    """Every way to have an actor of a CPU and so many cards for each of `cards`."""
    ways = {workers}
    for count in cards:
        ways = {
            tuple(sorted((*way[:n], (cpus - 1, free - count), *way[n + 1 :])))
            for way in ways
            for n, (cpus, free) in enumerate(way)
            if cpus >= 1 and free >= count
        }
    yield from ways


def most_groups(workers: tuple[Worker, ...], cards: tuple[int, ...], *, tp: int, threads: int, straddles: bool) -> int:
    counts = [0]
    for way in placed(workers, cards):
        ranks = [min(cpus // threads, free) for cpus, free in way]
        counts.append(sum(ranks) // tp if straddles else sum(each // tp for each in ranks))
    return max(counts)


SIZES = st.sampled_from([(1, 1), (1, 2), (2, 2), (1, 4), (2, 4), (4, 4), (1, 8), (2, 8), (4, 8), (8, 8), (2, 6)])


@settings(deadline=None, max_examples=150)
@given(
    size=SIZES,
    num_workers=st.integers(1, 3),
    cpus=st.sampled_from([4, 8, 16]),
    threads=st.sampled_from([1, 2]),
    placing=st.fixed_dictionaries(
        {
            "text": st.sampled_from(["cpu", "cards", "offloaded", "disk"]),
            "text_cards": st.integers(1, 5),
            "decode": st.sampled_from(["cpu", "card"]),
        }
    ),
    cluster=st.fixed_dictionaries(
        {
            "num_encoders": st.integers(1, 3),
            "num_finishers": st.integers(1, 4),
            "placement": st.sampled_from(["STRICT_PACK", "PACK"]),
        }
    ),
)
def test_what_a_cluster_is_told_fits_its_workers_and_one_more_does_not(
    size: tuple[int, int],
    num_workers: int,
    cpus: int,
    threads: int,
    placing: dict[str, Any],
    cluster: dict[str, Any],
) -> None:
    tp, gpus = size
    parallel = {"tp": tp, "threads_per_rank": threads}
    kubernetes = {"gpus_per_worker": gpus, "max_gpu_workers": num_workers, "gpu_worker_cpus": cpus}
    values = values_with(parallel=parallel, placing=placing, cluster=cluster, kubernetes=kubernetes)
    encoder = {"cpu": 0, "disk": 0, "offloaded": 1, "cards": placing["text_cards"]}[placing["text"]]
    finisher = 1 if placing["decode"] == "card" else 0
    cards = (encoder,) * cluster["num_encoders"] + (finisher,) * cluster["num_finishers"]
    there = tuple(sorted([(cpus, gpus)] * num_workers + [(8, 0)] * 2))
    straddles = cluster["placement"] == "PACK"
    most = most_groups(there, cards, tp=tp, threads=threads, straddles=straddles)
    if not most:
        with pytest.raises(ConfigError):
            work_of(values, "render", kubernetes_settings(values))
        return
    assert workers_of(values) == there
    assert told(values) == most
    values["parallel"]["groups"] = most + 1
    with pytest.raises(ConfigError, match=f"parallel.groups is {most + 1}, expected at most {most}"):
        told(values)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"placing": {"text": "cards", "text_cards": 4}},
            "placing.text_cards: one encoder wants 4 GPUs of one worker, expected at most 2",
        ),
        ({"placing": {"decode": "card"}, "kubernetes": {"max_gpu_workers": 1}}, "no room for 1 group of 2 x 1 CPU"),
        ({"parallel": {"threads_per_rank": 5}}, "no room for 1 group of 2 x 5 CPU and 1 GPU"),
        ({"parallel": {"groups": 5}}, "parallel.groups is 5, expected at most 4, which is what the workers hold"),
    ],
)
def test_what_no_worker_will_ever_hold_is_said_before_anything_is_sent(changes: dict[str, Any], said: str) -> None:
    values = values_with(**changes)
    with pytest.raises(ConfigError, match=said) as caught:
        work_of(values, "render", kubernetes_settings(values))
    assert "\n" not in str(caught.value)
