"""Groups of one stage each on real Ray: what a draft is after its way from one to the other, and who is lost alone."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from model.placing import Placing
from model.renderer import Renderer
from model.request import Latents
from model.shapes import clip_shape
from model.text import build_text_encoder
from model.weights import LocalWeights
from pipeline.crews.ray_fleet import RayFleet
from pipeline.fleet import (
    Done,
    EnlargeOrder,
    Event,
    Lost,
    Order,
    Ready,
    RenderOrder,
)
from pipeline.requests import request_of
from tests.cluster.fleets import clip, event_of, fleet_of, started, workplace
from tests.cluster.test_groups import KILLED_S, same
from tests.weights import two_stage_model, write_weights

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("shared_ray")]
MODEL = two_stage_model()
LARGE, SMALL = (clip_shape(MODEL, resolution=each, ratio="16:9", duration_s=3) for each in ("128P", "64P"))


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("two_stages"), MODEL)


def result_of(fleet: RayFleet, crew_id: str, order: Order) -> Any:
    fleet.offer(crew_id, order)
    done = event_of(fleet)
    assert isinstance(done, Done), done
    return done.result


@contextmanager
def one_thread() -> Iterator[None]:
    """As ranks have: bits depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_clip_goes_through_two_groups_and_one_that_dies_costs_its_own_stage(two_stages: Path, tmp_path: Path) -> None:
    made, reader = clip(shape=LARGE), LocalWeights(two_stages)
    text, negative = build_text_encoder(MODEL, reader).encode([made.prompt, made.negative_prompt or ""])
    with one_thread():
        whole = Renderer.load(MODEL, reader, device="cpu")
        alone = whole.render(request_of(made, {"text": text, "negative": negative}))
    conditions = {"text": ray.put(text), "negative": ray.put(negative)}
    place = workplace(two_stages, tmp_path, model=MODEL, placing=Placing(stages="apart"))
    with fleet_of(place, tp=1, enlargers=1) as fleet:
        for crew_id in ("group-0", "enlarger-0"):
            fleet.start(crew_id)
        ready: list[Event] = []
        while len(ready) < 2:
            ready += fleet.wait(0.2)
        assert {type(event) for event in ready} == {Ready}
        draft = result_of(fleet, "group-0", RenderOrder(clip=made, conditions=conditions, drafts=True))
        enlarging = EnlargeOrder(clip=made, draft=draft, conditions=conditions)
        latents: Latents = ray.get(result_of(fleet, "enlarger-0", enlarging))
        assert same(latents, alone)
        small = RenderOrder(clip=clip(shape=SMALL), conditions=conditions)
        shown: Latents = ray.get(result_of(fleet, "group-0", small))
        assert shown.video.shape == SMALL.video_latent

        fleet.offer("enlarger-0", enlarging)
        status = {each.group_id: each for each in fleet.groups()}["enlarger-0"]
        assert (status.state, status.num_steps) == ("busy", 2), "steps of its own stage"
        os.kill(fleet.rank_pids()["enlarger-0"][0], signal.SIGKILL)
        lost = event_of(fleet, timeout_s=KILLED_S)
        assert isinstance(lost, Lost)
        assert (lost.crew_id, lost.kind) == ("enlarger-0", "died")
        started(fleet, "enlarger-0")
        assert same(ray.get(result_of(fleet, "enlarger-0", enlarging)), alone), "from the draft that was there"
