"""Compiled layers: few compilations, none for other clips, and the eager numbers within rounding."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._dynamo.utils import counters
from torch.distributed import HashStore  # type: ignore[attr-defined]

from model import compiling
from model.compiling import compile_layers
from model.config import TransformerConfig
from model.parallel import shard
from model.placing import Placing, StagePlace
from model.renderer import Renderer
from model.request import Latents
from model.transformer import Transformer
from model.weights import LocalWeights
from pipeline.requests import smallest_shape, warm_up_request
from tests.models import TRANSFORMER, small_model
from tests.weights import write_weights

DEEP = dataclasses.replace(TRANSFORMER, num_layers=40, mm_layers=(0, 1, 38, 39), gelu7_layers=(0, 1))
LOCAL = dataclasses.replace(DEEP, local_attn_layers=tuple(range(1, 40, 2)), frame_receptive_field=1, coords_style="v1")
KINDS = 4  # of compiled pieces: before and after attention, gated MLP, plain MLP


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    compiling.compiled_pieces.cache_clear()
    yield
    torch._dynamo.reset()
    compiling.compiled_pieces.cache_clear()


def random_transformer(config: TransformerConfig, *, dtype: torch.dtype = torch.float32, tp: int = 1) -> Transformer:
    with torch.device("meta"):
        transformer = Transformer(config, dtype=dtype)
    shard(transformer, tp=tp, rank=0, group=dist.group.WORLD if tp > 1 else None)
    return filled(transformer)


def filled(transformer: Transformer) -> Transformer:
    transformer = transformer.to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for tensor in transformer.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return transformer


def inputs(*, frames: int, side: int, text: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(frames)
    shapes = ((1, 16, frames, side, side), (1, 2 * frames + 1, 8), (1, text, 32))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def compilations() -> int:
    return counters["stats"]["unique_graphs"]


@torch.inference_mode()
def run_clips(transformer: Transformer) -> int:
    """How many compilations the first clip took; the others may take none."""
    transformer(*inputs(frames=3, side=4, text=4))
    first = compilations()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for frames, side, text in ((5, 4, 9), (2, 6, 2), (7, 8, 640), (3, 4, 1)):
            video, audio, tokens = inputs(frames=frames, side=side, text=text)
            transformer(video, audio, tokens)
            transformer.forward_each(video, audio, [tokens, tokens[:, :1], tokens])
    assert compilations() == first
    return first


@pytest.mark.parametrize("config", [DEEP, LOCAL], ids=["global", "local"])
def test_forty_layers_compile_four_pieces_and_other_lengths_none(
    config: TransformerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.layers.SLICE_TOKENS", 100)  # the longest goes in slices
    transformer = random_transformer(config)
    compile_layers(transformer, backend="eager")
    assert run_clips(transformer) == KINDS


def test_a_rank_compiles_no_more() -> None:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        transformer = random_transformer(DEEP, tp=4)
        compile_layers(transformer, backend="eager")
        assert run_clips(transformer) == KINDS
    finally:
        dist.destroy_process_group()


def test_a_rank_makes_its_kernels_before_it_meets_the_others() -> None:
    model = small_model()
    with torch.device("meta"):
        transformer = Transformer(TRANSFORMER)
    sums = [shard(transformer, tp=2, rank=1, group=None)]
    transformer = filled(transformer)
    compile_layers(transformer, backend="eager")
    renderer, clip = Renderer(model, {"base": transformer}, device="cpu", sums=sums), warm_up_request(model)
    renderer.make_kernels(clip)
    assert compilations() == KINDS
    with pytest.raises(ValueError, match="process group"):
        renderer.render(clip)  # it sums again, and there is nobody yet
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        renderer.join(dist.group.WORLD)
        with torch._dynamo.config.patch(error_on_recompile=True):
            renderer.render(clip)
    finally:
        dist.destroy_process_group()


def test_two_stages_share_what_was_compiled() -> None:
    for config in (DEEP, LOCAL):
        transformer = random_transformer(config)
        compile_layers(transformer, backend="eager")
        run_clips(transformer)
    assert compilations() == KINDS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method.* is deprecated:DeprecationWarning")
@torch.inference_mode()
def test_what_a_rank_warms_up_is_all_that_its_clips_need() -> None:
    """With torch's own compiler: the eager numbers, and no kernel after those that `RankWorker.load` makes."""
    model = dataclasses.replace(small_model(), compiled=True, compute_dtype="bfloat16")
    eager, compiled = (random_transformer(TRANSFORMER, dtype=torch.bfloat16) for _ in range(2))
    compile_layers(compiled)
    renderers = [Renderer(model, {"base": each}, device="cpu") for each in (eager, compiled)]
    renderers[1].make_kernels(warm_up_request(model))
    assert compilations() == KINDS
    shape = smallest_shape(dataclasses.replace(model, durations_s=(4,), default_duration_s=4))
    clip = dataclasses.replace(warm_up_request(model), steps=2, video_latent=shape.video_latent, text=torch.ones(7, 32))
    with torch._dynamo.config.patch(error_on_recompile=True):
        expected, got = (renderer.render(clip) for renderer in renderers)
    assert compilations() == KINDS
    assert 0 < (got.video - expected.video).norm() / expected.video.norm() < 2e-2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method.* is deprecated:DeprecationWarning")
def test_wherever_weights_lie_compiled_numbers_are_the_same(tmp_path: Path) -> None:
    """torch has kept the kernels of the test above. Layers that stay and such that come may both be there."""
    shape = dataclasses.replace(TRANSFORMER, text_in_channels=48)  # as the text encoder of these weights wants it
    model = dataclasses.replace(small_model(), transformer=shape, compute_dtype="bfloat16")
    reader, warm_up = LocalWeights(write_weights(tmp_path / "weights", model)), warm_up_request(model)
    clip = dataclasses.replace(warm_up, steps=2, text=torch.ones(7, 48))
    eager = Renderer.load(model, reader, device="cpu").render(clip)
    model = dataclasses.replace(model, compiled=True)
    resident: Latents | None = None
    places: list[StagePlace] = ["resident", "swapped", "offloaded", "disk", "disk"]
    for stages, gb in zip(places, (0, 0, 0, 0, 7e-4), strict=True):
        placing, folder = Placing(stages=stages, stages_gb=gb), tmp_path / f"{stages} {gb}"
        renderer = Renderer.load(model, reader, device="cpu", placing=placing, folder=folder)
        renderer.make_kernels(warm_up)
        with torch._dynamo.config.patch(error_on_recompile=True):
            got = renderer.render(clip)
        resident = resident or got
        assert torch.equal(got.video, resident.video), placing
        assert torch.equal(got.audio, resident.audio), placing
        assert (got.video - eager.video).norm() / eager.video.norm() < 2e-2, placing
    kept = [each.device.type for each in renderer.stages[0].block.parameters()]
    assert set(kept) == {"cpu", "meta"}, "the last had layers of both kinds"
