"""Whole runs on real Ray, from a manifest to records: what faults cost, and what they do not."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import ray
from ray.util.placement_group import remove_placement_group

from pipeline.cleaning import clean_output
from pipeline.crews.placements import place
from pipeline.embeddings import EMBEDDINGS
from pipeline.errors import StoreError
from pipeline.ledger import ClipRecord, Ledger
from pipeline.run import render_manifest
from pipeline.settings import ClusterSettings, LeaseSettings, ParallelSettings
from pipeline.store import open_store
from pipeline.verify import verify_output
from tests.cluster.conftest import NUM_CPUS
from tests.cluster.runs import (
    LONG,
    descendants,
    is_alive,
    kill_a_rank_in_the_second_clip,
    run_settings,
    wait_for_records,
    write_manifest,
)

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


def records(folder: Path) -> dict[str, ClipRecord]:
    ledger = Ledger(open_store(str(folder / "out")))
    found = [ledger.read_record(key) for key in ledger.record_keys()]
    by_clip = {record.clip_id: record for record in found}
    assert len(by_clip) == len(found), "a clip has two records"
    return by_clip


def digests(record: ClipRecord) -> dict[str, str]:
    return {kind: file.sha256 for kind, file in record.finished.files.items()}


def assert_sound(folder: Path) -> None:
    assert verify_output(open_store(str(folder / "out"))) == []


@pytest.mark.usefixtures("shared_ray")
def test_a_run_leaves_records_results_and_success_and_a_second_one_does_nothing(weights: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, ["a", "bb", "ccc"])
    cluster = ClusterSettings(object_store_bytes=150_000_000, keep_embeddings=True)
    summary = render_manifest(run_settings(tmp_path, weights, cluster=cluster))
    assert (summary.exit_code, summary.num_rendered, summary.num_pending, dict(summary.failed)) == (0, 3, 0, {})
    assert_sound(tmp_path)
    assert {"_SUCCESS.json", "results.parquet", "run.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
    before = records(tmp_path)
    embeddings = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / EMBEDDINGS).iterdir()}
    assert len(embeddings) == 3, "two prompts and the negative one"
    again = render_manifest(run_settings(tmp_path, weights))
    assert (again.exit_code, again.num_rendered, again.num_done_before) == (0, 0, 3)
    assert records(tmp_path) == before

    (tmp_path / "out" / before["bb"].key).unlink()
    third = render_manifest(run_settings(tmp_path, weights, cluster=cluster))
    assert (third.exit_code, third.num_rendered) == (0, 1)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / EMBEDDINGS).iterdir()} == embeddings
    leavings = clean_output(open_store(str(tmp_path / "out")), superseded=None, lease=LeaseSettings(), dry_run=True)
    assert {each.key.partition(".")[0] for each in leavings} == {"clips/bb"}, (
        "of the record that was removed, and no more"
    )
    after = records(tmp_path)
    assert after["bb"].finished.attempt != before["bb"].finished.attempt
    assert digests(after["bb"]) == digests(before["bb"]), "the same row gives the same bytes"
    assert after["a"] == before["a"]


@pytest.mark.usefixtures("shared_ray")
def test_a_run_without_room_ends_with_five_and_says_what_is_missing(weights: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, ["a"])
    settings = run_settings(tmp_path, weights)
    hasty = dataclasses.replace(settings.cluster, placement_timeout_s=2)
    twice = dataclasses.replace(settings.retry, max_crew_losses=2, max_clip_deaths=1)
    full = place("somebody-else's", {"CPU": 1.0}, NUM_CPUS - 3, packing="PACK", off=())  # one less than is needed
    try:
        ray.get(full.ready(), timeout=20)
        summary = render_manifest(dataclasses.replace(settings, cluster=hasty, retry=twice))
    finally:
        remove_placement_group(full)
    assert (summary.exit_code, summary.num_rendered, summary.num_pending) == (5, 0, 1)
    told = r"is left that works; .* there is no room for .*; the cluster has 6 CPU, free are [01] CPU"
    assert re.search(told, summary.stopped or ""), summary.stopped


@pytest.mark.usefixtures("shared_ray")
def test_neighbours_order_and_number_of_groups_do_not_change_a_byte(weights: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_manifest(one, ["a", "bb", "ccc"])
    write_manifest(other, ["dddd", "ccc", "eeeee", "a"])
    assert render_manifest(run_settings(one, weights)).exit_code == 0
    two_groups = dataclasses.replace(run_settings(other, weights), parallel=ParallelSettings(tp=2, groups=2))
    assert render_manifest(two_groups).exit_code == 0
    for clip_id in ("a", "ccc"):
        assert digests(records(one)[clip_id]) == digests(records(other)[clip_id])
    assert digests(records(one)["a"]) != digests(records(one)["ccc"]), "every clip looks the same: nothing was shown"


@pytest.mark.usefixtures("shared_ray")
def test_a_rank_killed_in_a_clip_costs_that_group_and_no_clip(weights: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, ["a", "bb", "ccc"], steps=LONG)
    killer = threading.Thread(target=kill_a_rank_in_the_second_clip, args=(tmp_path, os.getpid()))
    killer.start()
    summary = render_manifest(run_settings(tmp_path, weights))
    killer.join()
    assert (summary.exit_code, summary.num_rendered) == (0, 3)
    assert sorted(record.num_attempts for record in records(tmp_path).values()) == [1, 1, 2]
    assert_sound(tmp_path)


def test_what_cannot_be_written_is_said_before_ray_is_started(weights: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, ["a"])
    (tmp_path / "out").write_text("a file where a folder is needed")
    with pytest.raises(StoreError, match="out"):
        render_manifest(run_settings(tmp_path, weights))


def test_a_killed_driver_takes_its_ray_along_and_the_same_command_goes_on(weights: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, ["a", "bb", "ccc", "dddd"], steps=LONG)
    run = start_run(tmp_path, weights)
    wait_for_records(tmp_path, 2)
    family = descendants(run.pid)
    assert any("raylet" in name for name in family.values())
    assert not any("PromptEncoder" in name for name in family.values()), "all is embedded, and it is there still"
    # Ray's two agents try for a minute, hard-coded, to tell a control service that is gone; they hold nothing.
    family = {pid: name for pid, name in family.items() if "Agent" not in name}
    run.kill()
    run.wait()
    before = records(tmp_path)
    gone_by = time.monotonic() + 60
    while alive := [pid for pid in family if is_alive(pid)]:
        assert time.monotonic() < gone_by, f"still there: {[family[pid] for pid in alive]}"
        time.sleep(0.2)

    second = start_run(tmp_path, weights)
    assert second.wait(timeout=300) == 0
    after = records(tmp_path)
    assert len(after) == 4
    assert {clip_id: after[clip_id] for clip_id in before} == before, "a recorded clip was touched"
    assert_sound(tmp_path)


def test_a_signal_ends_a_run_gently_with_work_left(weights: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, ["a", "bb", "ccc", "dddd", "eeeee"], steps=LONG)
    run = start_run(tmp_path, weights)
    wait_for_records(tmp_path, 1)
    os.killpg(run.pid, signal.SIGTERM)  # as `timeout` and supervisors do
    assert run.wait(timeout=180) == 3
    assert 2 <= len(records(tmp_path)) < 5, "what was in flight is finished, nothing else is begun"
    assert not (tmp_path / "out" / "_SUCCESS.json").exists()
    assert_sound(tmp_path)


def start_run(folder: Path, weights: Path) -> "subprocess.Popen[bytes]":
    command: Sequence[str] = [sys.executable, "-m", "tests.cluster.runs", str(folder), str(weights)]
    log = (folder / "log.txt").open("wb")
    with log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, process_group=0)
