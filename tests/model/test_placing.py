"""Wherever weights lie, the numbers are the same, and no more of them than allowed lies where work is done."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from model.config import ModelConfig
from model.offloading import text_limits
from model.placing import GB, Placing, TextPlace
from model.renderer import Renderer
from model.request import Latents, RenderRequest
from model.text import build_text_encoder
from model.weights import LocalWeights
from tests.allocations import Allocations
from tests.released import SENTENCES, released_model

PLACINGS = {
    "swapped": Placing(stages="swapped"),
    "offloaded": Placing(stages="offloaded"),
    "disk": Placing(stages="disk"),
    "disk, a part here": Placing(stages="disk", stages_gb=700_000 / GB),
}


@pytest.fixture(scope="module")
def model() -> ModelConfig:
    return released_model("magihuman_1080p", first_stage="base")


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """Sums that do nothing, so that one rank of two can be run without the other."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def request(model: ModelConfig) -> RenderRequest:
    generator = torch.Generator().manual_seed(1)
    channels = model.transformer.text_in_channels
    text, negative = (torch.randn(n, channels, generator=generator) for n in (5, 3))
    return RenderRequest(
        text=text,
        negative=negative,
        video_latent=(48, 3, 6, 10),
        first_latent=(48, 3, 4, 6),
        audio_latent=(9, model.transformer.audio_in_channels),
        seed=3,
        steps=2,
        guidance=None,
        image_latent=None,
    )


def same(one: Latents, other: Latents) -> bool:
    return torch.equal(one.video, other.video) and torch.equal(one.audio, other.audio)


def num_bytes(module: nn.Module, *, kind: str) -> int:
    return sum(each.nbytes for each in module.parameters() if each.device.type == kind)


@pytest.mark.parametrize("tp", [1, 2])
def test_placed_stages_render_the_same_bits(
    released_weights: Path, model: ModelConfig, tmp_path: Path, tp: int
) -> None:
    reader = LocalWeights(released_weights)
    whole = Renderer.load(model, reader, tp=tp, device="cpu").render(request(model))
    for name, placing in PLACINGS.items():
        folder = tmp_path / name
        placed = Renderer.load(model, reader, tp=tp, device="cpu", placing=placing, folder=folder)
        assert same(placed.render(request(model)), whole), name
        assert same(placed.render(request(model)), whole), f"{name}, again"


def test_sums_of_ranks_survive_the_hooks_of_what_is_offloaded(
    released_weights: Path, model: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = list[int]()
    monkeypatch.setattr(dist, "all_reduce", lambda total, group: sums.append(total.numel()))
    placed = Renderer.load(model, LocalWeights(released_weights), tp=2, device="cpu", placing=PLACINGS["offloaded"])
    placed.render(request(model))
    layers, forwards = model.transformer.num_layers, 2 * 2 + 2  # guided, twice; then super-resolution
    assert len(sums) == 2 * layers * forwards


def test_only_the_stage_that_works_is_on_the_device(released_weights: Path, model: ModelConfig) -> None:
    placed = Renderer.load(model, LocalWeights(released_weights), device="cpu", placing=PLACINGS["swapped"])
    homes = [[each.data_ptr() for each in stage.parameters()] for stage in placed.stages]
    away: list[list[bool]] = []

    def look(done: int, total: int) -> None:
        now = [[each.data_ptr() for each in stage.parameters()] for stage in placed.stages]
        away.append([set(here).isdisjoint(home) for here, home in zip(now, homes, strict=True)])

    with Allocations() as made:
        placed.render(request(model), on_step=look)
    sizes = [sum(each.nbytes for each in stage.parameters()) for stage in placed.stages]
    assert max(sizes) < made.peak_bytes < sum(sizes)
    assert away == [[True, False]] * 2 + [[False, True]] * 2
    assert [[each.data_ptr() for each in stage.parameters()] for stage in placed.stages] == homes


def test_a_stage_that_fails_leaves_nothing_on_the_device(released_weights: Path, model: ModelConfig) -> None:
    placed = Renderer.load(model, LocalWeights(released_weights), device="cpu", placing=PLACINGS["swapped"])
    homes = [[each.data_ptr() for each in stage.parameters()] for stage in placed.stages]

    def fail(done: int, total: int) -> None:
        raise torch.OutOfMemoryError("made by the test")

    with pytest.raises(torch.OutOfMemoryError):
        placed.render(request(model), on_step=fail)
    assert [[each.data_ptr() for each in stage.parameters()] for stage in placed.stages] == homes


def test_no_more_stays_than_the_limit_says(released_weights: Path, model: ModelConfig, tmp_path: Path) -> None:
    reader = LocalWeights(released_weights)
    placing = PLACINGS["disk, a part here"]
    placed = Renderer.load(model, reader, device="cpu", placing=placing, folder=tmp_path)
    for stage in placed.stages:
        kept = num_bytes(stage, kind="cpu")
        largest = max(
            sum(each.numel() * each.element_size() for each in layer.parameters()) for layer in stage.block.layers
        )
        assert 0 < kept <= placing.stages_gb * GB / 2 - largest, "no room for the layer that passes through"
        assert num_bytes(stage, kind="meta") > 0
    nothing = Renderer.load(model, reader, device="cpu", placing=PLACINGS["disk"], folder=tmp_path / "all")
    assert sum(num_bytes(stage, kind="cpu") for stage in nothing.stages) == 0


def test_an_encoder_is_spread_over_its_cards_and_the_rest_is_in_memory() -> None:
    placing = Placing(text="cards", text_cards=2, text_gb=8)
    limits = text_limits(placing, cards=placing.encoder_cards)
    assert limits is not None
    assert list(limits) == [0, 1, "cpu"]
    assert (limits[0], limits[1]) == (8 * GB, 8 * GB)
    assert text_limits(Placing(text="cards"), cards=1) is None, "accelerate looks for itself"
    assert {text: Placing(text=text, text_cards=3).encoder_cards for text in get_args(TextPlace)} == {
        "cpu": 0,
        "cards": 3,
        "offloaded": 1,
        "disk": 0,
    }


@pytest.mark.parametrize(
    "placing", [Placing(text="offloaded"), Placing(text="disk"), Placing(text="disk", text_gb=3e-5)]
)
def test_a_placed_text_encoder_says_the_same(
    released_weights: Path, model: ModelConfig, tmp_path: Path, placing: Placing
) -> None:
    reader = LocalWeights(released_weights)
    whole = build_text_encoder(model, reader).encode(SENTENCES)
    placed = build_text_encoder(model, reader, placing=placing, folder=tmp_path)
    for got, wanted in zip(placed.encode(SENTENCES), whole, strict=True):
        assert torch.equal(got, wanted)
    assert (placing.text == "disk") == any(tmp_path.iterdir())
