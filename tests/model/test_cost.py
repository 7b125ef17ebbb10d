"""Counted from the config is what construction gives, what torch counts in a forward, and what is said in public."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.config import ModelConfig, TransformerConfig
from model.cost import Tokens, active_parameters, forward_flops, parameters, stage_costs, tensor_shapes
from model.parallel import shard
from model.renderer import DTYPES
from model.shapes import clip_shape
from model.transformer import Transformer
from tests.configured import load_model

RELEASED = ("magihuman_base", "magihuman_distill", "magihuman_540p", "magihuman_1080p")


def built(config: TransformerConfig, *, dtype: str, tp: int = 1, rank: int = 0) -> Transformer:
    with torch.device("meta"):
        transformer = Transformer(config, dtype=DTYPES[dtype])
    shard(transformer, tp=tp, rank=rank, group=None)
    return transformer


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("name", RELEASED)
def test_counts_what_a_rank_of_a_released_model_is_built_with(name: str, tp: int) -> None:
    model = load_model(name)
    for config in model.transformers.values():
        for rank in {0, tp - 1}:
            whole = list(built(config, dtype=model.compute_dtype, tp=tp, rank=rank).parameters())
            counted = parameters(config, dtype=model.compute_dtype, tp=tp, rank=rank)
            assert counted.count == sum(each.numel() for each in whole)
            assert counted.num_bytes == sum(each.numel() * each.element_size() for each in whole)


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_counts_the_foal_too(tp: int) -> None:
    model = load_model("foal")
    whole = list(built(model.transformer, dtype="float32", tp=tp).parameters())
    counted = parameters(model.transformer, dtype="float32", tp=tp)
    assert counted.count == sum(each.numel() for each in whole)
    assert counted.num_bytes == sum(each.numel() * each.element_size() for each in whole)


def test_names_every_tensor_as_the_transformer_does() -> None:
    for name in (*RELEASED, "foal"):
        for config in load_model(name).transformers.values():
            named = {key: tuple(each.shape) for key, each in built(config, dtype="bfloat16").named_parameters()}
            assert dict(tensor_shapes(config)) == named


def test_agrees_with_what_is_said_in_public() -> None:
    config = load_model("magihuman_base").transformer
    counted = parameters(config, dtype="bfloat16")
    assert counted.count == 15_299_419_136
    assert counted.num_bytes / 1e9 == pytest.approx(30.64, abs=0.005)
    assert active_parameters(config) / 1e9 == pytest.approx(10.9, rel=0.01)


def test_a_step_at_256p_is_a_tenth_of_a_petaflop() -> None:
    model = load_model("magihuman_distill")
    shape = clip_shape(model, resolution="256P", ratio="16:9", duration_s=5)
    (stage,) = stage_costs(model, shape, steps=8, text_tokens=300, negative_tokens=0)
    assert stage.forwards == 8
    assert stage.flops / 8 == pytest.approx(0.1e15, rel=0.05)


@pytest.mark.parametrize("local", [(), (1, 2)], ids=["full", "local"])
def test_flops_are_those_that_torch_counts(local: tuple[int, ...]) -> None:
    config = TransformerConfig(
        num_layers=4,
        hidden_size=320,
        head_dim=64,
        num_heads_q=10,
        num_heads_kv=2,
        video_in_channels=192,
        audio_in_channels=64,
        text_in_channels=96,
        mm_layers=(0, 3),
        gelu7_layers=(0,),
        local_attn_layers=local,
        coords_style="v1",
        frame_receptive_field=2,
        place_frequencies=8,
    )
    transformer = built(config, dtype="bfloat16").requires_grad_(False)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        transformer(torch.empty(1, 48, 7, 8, 12), torch.empty(1, 26, 64), torch.empty(1, 9, 96))
    tokens = Tokens(frames=7, per_frame=24, audio=26, text=9)
    assert forward_flops(config, tokens).total == counter.get_total_flops()


def guided(model: ModelConfig) -> int:
    shape = clip_shape(model, resolution=model.default_resolution, ratio="16:9", duration_s=5)
    return stage_costs(model, shape, steps=32, text_tokens=100, negative_tokens=100)[0].forwards


def test_a_guided_step_is_two_forwards() -> None:
    assert guided(load_model("magihuman_base")) == 64
    assert guided(load_model("magihuman_distill")) == 32


def test_super_resolution_is_a_stage_of_its_own_with_its_own_tokens() -> None:
    model = load_model("magihuman_1080p")
    shape = clip_shape(model, resolution="1080P", ratio="16:9", duration_s=5)
    first, second = stage_costs(model, shape, steps=8, text_tokens=200, negative_tokens=0)
    assert (first.part, first.tokens, first.forwards) == ("distill", 32 * 8 * 14 + 126 + 200, 8)
    assert (second.part, second.tokens, second.forwards) == ("1080p_sr", 32 * 34 * 60 + 126 + 200, 5)
    assert 15e15 < second.flops < 25e15  # 31 s on one H100 in the release
