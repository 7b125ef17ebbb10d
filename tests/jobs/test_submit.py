"""`happyhorse submit cluster=kuberay` as a person meets it, and what its words do in the cluster."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import main
from jobs.compose import compose_values
from jobs.elsewhere import TYPED
from jobs.in_cluster import job_exit_code
from jobs.kuberay import start_cron_job
from jobs.settings import run_settings
from jobs.words import read_words
from pipeline.kuberay.objects import COMMAND_VARIABLE
from pipeline.settings import RunSettings
from pipeline.store import open_store
from tests.pipeline.export.outputs import rendered
from tests.pipeline.kuberay.crds import problems

DRY = ["submit", "cluster=kuberay", "dry_run=true"]
PLACES = ["manifest=s3://studio/tonight.parquet", "output=s3://studio/tonight"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a dry run has no need of a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The object of a dry run, which is alone on standard output."""
    assert main([*DRY, *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    made = yaml.safe_load(out)
    assert isinstance(made, dict)
    return made


def words_of(made: dict[str, Any]) -> list[str]:
    head = made["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    (variable,) = head["env"]
    assert variable["name"] == COMMAND_VARIABLE
    words: list[str] = json.loads(variable["value"])
    return words


def settings_there(made: dict[str, Any]) -> RunSettings:
    """What the cluster makes of its words."""
    command, *words = words_of(made)
    assert command == "render"
    return run_settings(compose_values(command, read_words(words)))


def test_a_dry_run_needs_nothing_and_prints_yaml_alone(capsys: pytest.CaptureFixture[str]) -> None:
    made = printed(capsys)
    assert problems(made) == []
    assert settings_there(made).manifest == "s3://bucket/manifest.parquet"


def test_the_cluster_hears_what_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    where = 'where=a > 3 and b == "it\'s $(HOME) 夜"'
    words = [where, "model=magihuman_1080p", "parallel=tp4", "media.crf=20", "weights=s3://studio/weights"]
    made = printed(capsys, *PLACES, *words, "kubernetes.max_gpu_workers=3", "kubernetes.gpus_per_worker=8", "name=x")
    settings = settings_there(made)
    assert (settings.manifest, settings.output) == ("s3://studio/tonight.parquet", "s3://studio/tonight")
    assert f"where={settings.selection.where}" == where
    assert (settings.model.name, settings.parallel.tp, settings.media.crf) == ("magihuman_1080p", 4, 20)
    assert settings.parallel.groups == 6  # three workers of eight cards, four a group
    assert not [
        word for word in words_of(made) if word.startswith(("kubernetes", "name", "dry_run", "cluster=kuberay"))
    ]


def test_the_cluster_knows_that_cards_will_come(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = settings_there(printed(capsys, *PLACES)).cluster
    assert (cluster.address, cluster.device, cluster.grows, cluster.placement_timeout_s) == ("auto", "cuda", True, 1800)


def test_what_is_said_of_the_cluster_stays_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["cluster.num_finishers=9", "cluster.placement_timeout_s=77", "parallel.groups=1"]
    settings = settings_there(printed(capsys, *PLACES, *words))
    assert (settings.cluster.num_finishers, settings.cluster.placement_timeout_s) == (9, 77)
    assert settings.parallel.groups == 1


def test_groups_of_each_stage_are_said_where_stages_are_apart(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["placing=apart", "model=magihuman_1080p", "weights=s3://b/w", "parallel=tp4"]
    words += ["kubernetes.max_gpu_workers=3"]
    said = settings_there(printed(capsys, *PLACES, *words, "parallel.groups=1", "parallel.enlarging_groups=2"))
    assert (said.parallel.groups, said.parallel.enlarging_groups) == (1, 2)
    for more, message in (
        ([], "say both with placing=apart; the workers hold 3 together"),
        (["parallel.groups=2", "parallel.enlarging_groups=2"], "are 2 and 2, expected at most 3"),
    ):
        assert main([*DRY, *PLACES, *words, *more]) == 2
        assert message in capsys.readouterr().err


def test_without_cards(capsys: pytest.CaptureFixture[str]) -> None:
    made = printed(capsys, *PLACES, "cluster.device=cpu")
    assert [group["groupName"] for group in made["spec"]["rayClusterSpec"]["workerGroupSpecs"]] == ["cpu"]
    assert settings_there(made).cluster.device == "cpu"


def test_a_nightly_is_a_cron_job_at_the_opening_of_its_window(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["inbox=s3://studio/inbox", "output=s3://studio/films", "window=22:30-06:00", *DRY[1:], "parallel=tp4"]
    words = ["manifest=s3://studio/inbox", "output=s3://studio/films", *DRY[1:], "parallel=tp4"]
    values = compose_values("submit", read_words(words)) | {TYPED: typed}
    assert start_cron_job(values, opens="22:30", timezone="Europe/Berlin") == 0
    made = yaml.safe_load(capsys.readouterr().out)
    assert problems(made) == []
    assert (made["kind"], made["spec"]["schedule"], made["spec"]["timeZone"]) == (
        "RayCronJob",
        "30 22 * * *",
        "Europe/Berlin",
    )
    words_there = words_of({"spec": made["spec"]["jobTemplate"]})
    assert words_there[:4] == ["nightly", *typed[:3]]
    assert not {"cluster=kuberay", "dry_run=true"} & set(words_there), "it would make cron jobs of cron jobs"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cluster=kuberay"], "submit needs manifest=... and output=..."),
        ([*DRY[1:], "manifest=mine.parquet"], "manifest=mine.parquet is on this machine, expected s3://"),
        ([*DRY[1:], "output=file:///out"], "output=file:///out is on this machine"),
        ([*DRY[1:], "parallel=auto"], "say parallel=tp1"),
        ([*DRY[1:], "kubernetes.gpus_per_worker=3"], "is 3, expected a multiple of a group's ranks (2)"),
        ([*DRY[1:], "address=head:6379"], "cluster=kuberay makes one"),
        ([*DRY[1:], "kubernetes.imag=x"], "unknown key kubernetes.imag; the nearest known one is kubernetes.image"),
        ([*DRY[1:], "media.crf=99"], "crf is 99"),
        ([*DRY[1:], "kubernetes.auth=none"], "expected one of token, disabled"),
        (["cluster=kuberay", "dry_run=yes", *PLACES], "dry_run: got "),
    ],
)
def test_a_mistake_is_said_before_anything_is_printed(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (1, 0), (2, 2), (3, 0), (4, 0), (5, 5), (-9, -9), (137, 137)])
def test_only_what_a_new_cluster_may_mend_is_a_failure(code: int, ends: int) -> None:
    assert job_exit_code(code) == ends


def in_cluster(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.in_cluster"],
        env=os.environ | {COMMAND_VARIABLE: json.dumps(words)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_entrypoint_runs_the_words_and_tells_codes_apart(tmp_path: Path) -> None:
    rendered(open_store(str(tmp_path / "out")), tmp_path, {"prompt": ["one"], "clip_id": ["a"]})
    (tmp_path / "out" / "clips" / "a.0a1b2c3d.wav").unlink()
    words = ["export", f"output={tmp_path}/out", f"to={tmp_path}/it's $HOME; films"]
    done = in_cluster(*words)
    assert (done.returncode, "happyhorse ended with 1" in done.stdout) == (0, True), done.stderr
    assert (tmp_path / "it's $HOME; films" / "a.mp4").exists()
    assert in_cluster("render").returncode == 2
