"""Fleets on real Ray with a model of noise, and orders for them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from model.shapes import clip_shape
from model.text import build_text_encoder
from model.weights import LocalWeights
from pipeline.crews.ray_fleet import RayFleet
from pipeline.fleet import Event, Ready, RenderOrder
from pipeline.settings import ClusterSettings, ParallelSettings
from pipeline.store import StorageSettings
from pipeline.types import Clip, Stage
from pipeline.worker import Workplace
from tests.clips import MEDIA, make_clip
from tests.weights import noise_model

MODEL = noise_model()
SHAPE = clip_shape(MODEL, resolution="64P", ratio="16:9", duration_s=3)


@contextmanager
def fleet_of(
    place: Workplace, *, tp: int = 2, groups: int = 1, enlargers: int = 0, **cluster: Any
) -> Iterator[RayFleet]:
    """As many groups as fit may join."""
    settings = ClusterSettings(**cluster)
    kinds: dict[Stage, int] = {"render": groups, "enlarge": enlargers}
    fleet = RayFleet(place, cluster=settings, parallel=ParallelSettings(tp=tp), groups=kinds)
    try:
        yield fleet
    finally:
        fleet.close()


def workplace(weights: Path, output: Path, **changes: Any) -> Workplace:
    values: dict[str, Any] = {
        "model": MODEL,
        "weights": str(weights),
        "output": str(output),
        "storage": StorageSettings(),
        "media": MEDIA,
        "threads": 1,
        "device": "cpu",
    }
    return Workplace(**(values | changes))


def event_of(fleet: RayFleet, *, timeout_s: float = 60) -> Event:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        events = fleet.wait(0.2)
        if events:
            assert len(events) == 1
            return events[0]
    raise TimeoutError(f"no event within {timeout_s} s")


def started(fleet: RayFleet, crew_id: str) -> Ready:
    fleet.start(crew_id)
    ready = event_of(fleet)
    assert isinstance(ready, Ready), ready
    assert len(ready.nodes) == 1
    return ready


def clip(**changes: Any) -> Clip:
    return make_clip("clip", **({"steps": 2, "shape": SHAPE} | changes))


def render_order(weights: Path, made: Clip) -> RenderOrder:
    text, negative = build_text_encoder(MODEL, LocalWeights(weights)).encode([made.prompt, made.negative_prompt or ""])
    return RenderOrder(clip=made, conditions={"text": ray.put(text), "negative": ray.put(negative)})
