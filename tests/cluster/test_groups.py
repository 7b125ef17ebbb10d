"""Crews on real Ray: how they come up, answer, and are lost as one."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.util.placement_group import placement_group_table

from model.placing import Placing
from model.renderer import Renderer
from model.request import Latents, RenderRequest
from model.text import build_text_encoder
from model.weights import LocalWeights
from pipeline.crews.deadlines import ENOUGH
from pipeline.crews.ray_fleet import RayFleet
from pipeline.fleet import (
    OUT_OF_MEMORY,
    Done,
    EncodeOrder,
    FinishOrder,
    Lost,
    Picture,
    Refused,
    RenderOrder,
    Text,
)
from pipeline.types import ImageRef
from pipeline.worker import Workplace
from tests.cluster.fleets import MODEL, SHAPE, clip, event_of, fleet_of, render_order, started, workplace
from tests.cluster.runs import LONG, descendants, is_alive

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("shared_ray")]
ROOT = Path(__file__).parents[2]
MEMORY_SEED, LONELY_MEMORY_SEED = 667, 668  # what tests/chaos/hook/sitecustomize.py looks for
KILLED_S = 10  # in which a process that was killed is noticed; usual is a tenth of it


@pytest.fixture
def place(weights: Path, tmp_path: Path) -> Workplace:
    return workplace(weights, tmp_path)


def wait_until(true: Any, *, timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


def rank_pids(fleet: RayFleet) -> dict[int, int]:
    """Of both ranks, as they say themselves."""
    return fleet.rank_pids()["group-0"]


def num_loads(pid: int) -> int:
    """As its own log says, in Ray's session folder."""
    session = Path(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[attr-defined]
    logs = list(session.glob(f"logs/worker-*-{pid}.err"))
    assert logs, "it keeps no log"
    return sum(path.read_text().count("has loaded its weights") for path in logs)


def scratch_folders(pid: int) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"happyhorse-*-{pid}-*"))


def placement_states() -> list[str]:
    return [each["state"] for each in placement_group_table().values()]


def test_two_ranks_render_what_one_process_renders(place: Workplace, weights: Path) -> None:
    made = clip()
    order = render_order(weights, made)
    with fleet_of(place) as fleet:
        started(fleet, "group-0")
        fleet.offer("group-0", order)
        done = event_of(fleet)
        assert isinstance(done, Done)
        latents: Latents = ray.get(done.result)  # type: ignore[call-overload]
        assert fleet.groups()[0].state == "ready"
    text, negative = build_text_encoder(MODEL, LocalWeights(weights)).encode([made.prompt, made.negative_prompt or ""])
    alone = Renderer.load(MODEL, LocalWeights(weights), device="cpu").render(
        RenderRequest(
            text=text,
            negative=negative,
            video_latent=SHAPE.video_latent,
            audio_latent=SHAPE.audio_latent,
            seed=made.seed,
            steps=made.steps,
            guidance=None,
            image_latent=None,
        )
    )
    torch.testing.assert_close(latents.video, alone.video, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(latents.audio, alone.audio, rtol=1e-3, atol=1e-3)


def test_a_busy_group_says_where_it_is(place: Workplace, weights: Path) -> None:
    with fleet_of(place, step_timeout_s=3) as fleet:
        started(fleet, "group-0")
        fleet.offer("group-0", render_order(weights, clip(steps=20 * LONG)))
        assert not fleet.wait(0.1)
        time.sleep(3.5)
        assert not fleet.wait(0), "nobody looked, and for that it was called hung"
        steps = set[int]()
        while len(steps) < 3:
            assert not fleet.wait(0.1)
            (status,) = fleet.groups()
            assert (status.state, status.clip_id, status.num_steps) == ("busy", "clip", 20 * LONG)
            steps.add(status.step)


def latents_of(fleet: RayFleet, order: RenderOrder) -> Latents:
    fleet.offer("group-0", order)
    done = event_of(fleet)
    assert isinstance(done, Done), done
    latents: Latents = ray.get(done.result)  # type: ignore[call-overload]
    return latents


def same(one: Latents, other: Latents) -> bool:
    return torch.equal(one.video, other.video) and torch.equal(one.audio, other.audio)


def test_a_killed_rank_is_replaced_and_the_others_do_not_load_again(place: Workplace, weights: Path) -> None:
    order = render_order(weights, clip())
    with fleet_of(dataclasses.replace(place, placing=Placing(stages="disk"))) as fleet:
        ready = started(fleet, "group-0")
        pids = rank_pids(fleet)
        assert all(map(scratch_folders, pids.values()))
        before = latents_of(fleet, order)
        fleet.offer("group-0", render_order(weights, clip(steps=LONG)))
        time.sleep(0.3)
        os.kill(pids[1], signal.SIGKILL)
        began = time.monotonic()
        lost = event_of(fleet, timeout_s=KILLED_S)
        assert time.monotonic() - began < KILLED_S
        assert isinstance(lost, Lost)
        assert (lost.kind, lost.node, lost.fatal) == ("died", ready.nodes[0], None)
        assert f"(node {ready.nodes[0][:8]}, process {pids[1]})" in lost.reason
        started(fleet, "group-0")
        mended = rank_pids(fleet)
        assert mended[0] == pids[0]
        assert mended[1] != pids[1]
        assert not scratch_folders(pids[1]), "the next rank there removes what a killed one has left"
        assert all(map(scratch_folders, mended.values()))
        assert num_loads(pids[0]) == num_loads(mended[1]) == 1, "the rank that lived has loaded its weights again"
        assert same(latents_of(fleet, order), before)

        os.kill(pids[0], signal.SIGKILL)  # the one with the store, and no clip
        lost = event_of(fleet, timeout_s=KILLED_S)
        assert isinstance(lost, Lost)
        assert "rank 0" in lost.reason
        started(fleet, "group-0")
        assert rank_pids(fleet)[1] == mended[1]
        assert same(latents_of(fleet, order), before)
        assert fleet.groups()[0].num_clips == 3
    assert set(placement_states()) <= {"REMOVED"}


def test_a_group_whose_others_do_not_leave_is_built_anew(place: Workplace, weights: Path) -> None:
    with fleet_of(place, leave_timeout_s=2) as fleet:
        started(fleet, "group-0")
        pids = rank_pids(fleet)
        fleet.offer("group-0", render_order(weights, clip(steps=LONG)))
        os.kill(pids[0], signal.SIGSTOP)
        os.kill(pids[1], signal.SIGKILL)
        lost = event_of(fleet)
        assert isinstance(lost, Lost)
        assert lost.kind == "died"
        started(fleet, "group-0")
        assert not set(rank_pids(fleet).values()) & set(pids.values())
    wait_until(lambda: not is_alive(pids[0]), timeout_s=20)


def test_a_frozen_rank_is_named_as_the_culprit(place: Workplace, weights: Path) -> None:
    with fleet_of(place, step_least_s=4, step_slack=50) as fleet:
        ready = started(fleet, "group-0")
        pids = rank_pids(fleet)
        for _ in range(ENOUGH):
            latents_of(fleet, render_order(weights, clip()))
        fleet.offer("group-0", render_order(weights, clip(steps=LONG)))
        time.sleep(0.3)
        os.kill(pids[1], signal.SIGSTOP)
        began = time.monotonic()
        lost = event_of(fleet)
        hung_s = time.monotonic() - began
        assert isinstance(lost, Lost)
        assert (lost.kind, lost.node) == ("hung", ready.nodes[0])
        assert "no step for" in lost.reason
        deadline = re.search(r"\((\S+) s is what cluster\.step_slack", lost.reason)
        assert deadline is not None, "it waited for step_timeout_s"
        assert hung_s < 2 * float(deadline[1])
        assert "rank 1" in lost.reason
        assert "rank 0" not in lost.reason
        wait_until(lambda: not is_alive(pids[1]), timeout_s=20)


def test_a_group_that_does_not_fit_says_what_is_missing_and_blocks_nobody(place: Workplace) -> None:
    with fleet_of(place, tp=16, placement_timeout_s=4) as fleet:
        began = time.monotonic()
        fleet.start("group-0")
        assert time.monotonic() - began < 4, "it waited until the group was placed or given up"
        lost = event_of(fleet, timeout_s=20)
        assert isinstance(lost, Lost)
        assert lost.kind == "unplaced", lost
        assert "no room for 16 x 1 CPU on one node" in lost.reason
        there = ray.cluster_resources()["CPU"]  # type: ignore[no-untyped-call]
        assert f"the cluster has {there:g} CPU" in lost.reason
    wait_until(lambda: set(placement_states()) <= {"REMOVED"})


def test_wrong_weights_are_fatal_and_say_which_tensor(place: Workplace) -> None:
    model = dataclasses.replace(MODEL, transformer=dataclasses.replace(MODEL.transformer, hidden_size=128))
    with fleet_of(dataclasses.replace(place, model=model)) as fleet:
        fleet.start("group-0")
        lost = event_of(fleet)
        assert isinstance(lost, Lost)
        assert lost.fatal == "WeightsError"
        assert "video_embedder" in lost.reason


def test_a_clip_that_no_rank_can_render_costs_no_group(place: Workplace, weights: Path) -> None:
    bad = clip()
    bad = dataclasses.replace(bad, shape=dataclasses.replace(SHAPE, video_latent=(3, 5, 6, 10)))
    with fleet_of(dataclasses.replace(place, placing=Placing(stages="swapped"))) as fleet:
        started(fleet, "group-0")
        pids = rank_pids(fleet)
        fleet.offer("group-0", render_order(weights, bad))
        refused = event_of(fleet)
        assert isinstance(refused, Refused)
        assert (refused.failure.kind, refused.failure.retriable) == ("ClipError", False)

        fleet.offer("group-0", render_order(weights, clip(seed=MEMORY_SEED)))
        refused = event_of(fleet)
        assert isinstance(refused, Refused)
        assert (refused.failure.kind, refused.failure.retriable) == (OUT_OF_MEMORY, False)
        assert "at 80x46, 36 frames, tp=2: it needs" in refused.failure.message
        assert "cards that hold it by placing.stages: resident tp1 24 GB" in refused.failure.message
        assert "CUDA out of memory" in refused.failure.message
        fleet.offer("group-0", render_order(weights, clip()))
        assert isinstance(event_of(fleet), Done)
        assert rank_pids(fleet) == pids

        fleet.offer("group-0", render_order(weights, clip(seed=LONELY_MEMORY_SEED)))
        began = time.monotonic()
        lost = event_of(fleet)
        assert isinstance(lost, Lost)
        assert (lost.kind, time.monotonic() - began < 15) == ("died", True)
        assert "not all of its ranks ran out of memory" in lost.reason


def test_prompts_and_pictures_become_conditions(place: Workplace, weights: Path, tmp_path: Path) -> None:
    image = ImageRef(uri=None, data=b"no picture at all", identity="0" * 64, height=300, width=400)
    with fleet_of(place) as fleet:
        started(fleet, "encoder-0")
        texts = ["a red ball", "a blue square falls"]
        fleet.offer("encoder-0", EncodeOrder(conditions=tuple(Text(prompt=text) for text in texts)))
        done = event_of(fleet)
        assert isinstance(done, Done)
        assert isinstance(done.result, tuple)
        for made, text in zip(ray.get(list(done.result)), texts, strict=True):
            assert torch.equal(made, build_text_encoder(MODEL, LocalWeights(weights)).encode([text])[0])
        picture = Picture(identity=image.identity, latent_height=6, latent_width=10, image=image)
        fleet.offer("encoder-0", EncodeOrder(conditions=(picture,)))
        refused = event_of(fleet)
        assert isinstance(refused, Refused)
        assert refused.failure.kind == "ClipError"


def test_a_finisher_answers_with_what_it_uploaded_or_why_not(place: Workplace, tmp_path: Path) -> None:
    latents = Latents(video=torch.zeros(SHAPE.video_latent), audio=torch.zeros(SHAPE.audio_latent))
    short = dataclasses.replace(latents, video=latents.video[:, :3])
    with fleet_of(place) as fleet:
        started(fleet, "finisher-0")
        fleet.offer("finisher-0", FinishOrder(clip=clip(), attempt="0badcafe", latents=ray.put(latents)))
        done = event_of(fleet)
        assert isinstance(done, Done)
        assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == [
            f"clip.0badcafe.{kind}" for kind in ("jpg", "mp4", "wav")
        ]
        fleet.offer("finisher-0", FinishOrder(clip=clip(), attempt="1badcafe", latents=ray.put(short)))
        refused = event_of(fleet)
        assert isinstance(refused, Refused)
        assert refused.failure.kind == "EncodeError"
        assert "9 frames, expected 36" in refused.failure.message


def pid_of(kind: str) -> int:
    (pid,) = (pid for pid, name in descendants(os.getpid()).items() if name.startswith(f"ray::{kind}"))
    return pid


@pytest.mark.parametrize(
    ("crew_id", "kind", "by", "noticed_as"),
    [("encoder-0", "PromptEncoder", signal.SIGKILL, "died"), ("finisher-0", "Finisher", signal.SIGSTOP, "hung")],
)
def test_an_idle_process_that_is_killed_or_frozen_is_noticed_without_an_order(
    place: Workplace, crew_id: str, kind: str, by: signal.Signals, noticed_as: str
) -> None:
    with fleet_of(dataclasses.replace(place, placing=Placing(text="disk")), step_least_s=4) as fleet:
        ready = started(fleet, crew_id)
        assert fleet.wait(1) == [], "it was asked how it is, and that is no event"
        pid = pid_of(kind)
        os.kill(pid, by)
        lost = event_of(fleet, timeout_s=KILLED_S)
        assert isinstance(lost, Lost)
        assert (lost.crew_id, lost.kind, lost.node) == (crew_id, noticed_as, ready.nodes[0])
        assert f"process {pid}" in lost.reason
        wait_until(lambda: not is_alive(pid), timeout_s=20)
        if kind == "PromptEncoder":
            assert scratch_folders(pid)
            started(fleet, crew_id)
            assert not scratch_folders(pid)
            assert scratch_folders(pid_of(kind))


def test_a_killed_finisher_is_lost_with_its_order_and_starts_again(place: Workplace) -> None:
    latents = Latents(video=torch.zeros(SHAPE.video_latent), audio=torch.zeros(SHAPE.audio_latent))
    order = FinishOrder(clip=clip(), attempt="0badcafe", latents=ray.put(latents))
    with fleet_of(place) as fleet:
        ready = started(fleet, "finisher-0")
        pid = pid_of("Finisher")
        os.kill(pid, signal.SIGKILL)
        fleet.offer("finisher-0", order)
        lost = event_of(fleet)
        assert isinstance(lost, Lost)
        assert (lost.kind, lost.node, lost.fatal) == ("died", ready.nodes[0], None)
        assert f"process {pid}" in lost.reason
        started(fleet, "finisher-0")
        fleet.offer("finisher-0", dataclasses.replace(order, attempt="1badcafe"))
        assert isinstance(event_of(fleet), Done)


def test_a_cluster_that_is_not_there_is_said_soon() -> None:
    script = (
        "from pipeline.cluster import connect\nfrom pipeline.settings import ClusterSettings, ParallelSettings\n"
        "with connect(ClusterSettings(address='127.0.0.1:1'), parallel=ParallelSettings()): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert "ClusterError: no Ray cluster at 127.0.0.1:1" in done.stderr


def test_storage_that_says_no_is_told_as_such(place: Workplace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    latents = Latents(video=torch.zeros(SHAPE.video_latent), audio=torch.zeros(SHAPE.audio_latent))
    with fleet_of(dataclasses.replace(place, output=str(tmp_path / "file" / "out"))) as fleet:
        started(fleet, "finisher-0")
        fleet.offer("finisher-0", FinishOrder(clip=clip(), attempt="0badcafe", latents=ray.put(latents)))
        refused = event_of(fleet)
        assert isinstance(refused, Refused)
        assert refused.failure.kind == "StoreError"


def test_a_finisher_that_decodes_on_a_card_asks_for_one(place: Workplace) -> None:
    """There is none here, and no node is to blame for that."""
    wanting = dataclasses.replace(place, device="cuda", placing=Placing(decode="card"))
    with fleet_of(wanting, placement_timeout_s=1) as fleet:
        fleet.start("finisher-0")
        lost = event_of(fleet)
    assert isinstance(lost, Lost)
    assert (lost.kind, lost.node) == ("unplaced", None)
    assert "1 GPU" in lost.reason, lost.reason
