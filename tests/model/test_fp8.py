"""8-bit linear maps: a scale a row, zeros that fill up, one rank or several, and how far the recorded models move."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.cost import parameters
from model.fp8 import DTYPE, Fp8Weight, quantise, quantise_into, scaled_linear
from model.fp8_layers import prepare_fp8
from model.layers import Layer
from model.parallel import shard
from model.pieces import mlp
from model.recordings import transformer_config
from model.renderer import Renderer
from model.transformer import Transformer
from model.weights import LocalWeights, load_transformer_weights
from tests.bench.rounding import recorded, velocity_error
from tests.configured import load_model
from tests.models import small_model

GOLDEN = Path(__file__).parents[1] / "golden"
WIDE = recorded(str(GOLDEN), "dit_wide_v2_fp32").notes
CONFIG = transformer_config(WIDE["config"], coords_style="v2", radius=-1)


def far(got: Tensor, expected: Tensor) -> float:
    return float((got.float() - expected.float()).norm() / expected.float().norm())


def test_a_row_keeps_its_own_scale() -> None:
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1, 50, 1e4, 0])[:, None]
    values, scales = quantise(x)
    assert values.dtype == DTYPE
    back = values.float() * scales
    assert torch.equal(back[4], torch.zeros(64))
    for got, row in zip(back[:4], x[:4], strict=True):
        assert far(got, row) < 0.04


@pytest.mark.parametrize(("rows", "columns"), [(48, 64), (37, 64), (8, 48)])
def test_the_product_is_that_of_the_rounded_numbers(rows: int, columns: int) -> None:
    """Zeros fill 37 and 8 rows up to 48 and 16; none of them comes out."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 9, columns, generator=generator), torch.randn(rows, columns, generator=generator)
    like = torch.empty(-(-rows // 16) * 16, columns)
    values, scales = quantise_into(weight, like=like)
    got = scaled_linear(x, Fp8Weight(values, scales, rows))
    assert got.shape == (1, 9, rows)
    x_values, x_scales = quantise(x[0])
    exact = (x_values.double() * x_scales) @ (values.double() * scales)[:rows].T
    assert far(got[0], exact) < 4e-3  # rounded to bfloat16 once
    assert 0.01 < far(got[0], x[0] @ weight.T) < 0.06


@pytest.mark.parametrize("name", ["dit_base_v2", "dit_local_v1", "dit_wide_v2"])
def test_the_recorded_velocities_move_by_a_few_percent(name: str) -> None:
    """`dit_wide` has an inner size of 340, which zeros fill up to 352."""
    errors = velocity_error(str(GOLDEN), name)
    assert all(0.03 < error < 0.08 for error in errors.values()), errors


def rank(*, tp: int, number: int) -> Transformer:
    with torch.device("meta"):
        transformer = Transformer(CONFIG, dtype=torch.bfloat16)
    shard(transformer, tp=tp, rank=number, group=None)
    prepare_fp8(transformer)
    load_transformer_weights(
        transformer,
        LocalWeights(str(GOLDEN)),
        part="dit_wide_v2_weights",
        config=CONFIG,
        tp=tp,
        rank=number,
        device="cpu",
    )
    return transformer


@torch.no_grad()
def test_ranks_quantise_their_own_shares_and_sum_to_the_whole() -> None:
    x = torch.randn(1, 11, CONFIG.hidden_size, generator=torch.Generator().manual_seed(0))
    whole = mlp_of(rank(tp=1, number=0), x)
    parts = [mlp_of(rank(tp=2, number=number), x) for number in range(2)]
    assert far(parts[0] + parts[1], whole) < 0.05
    assert far(parts[0], whole) > 0.3


def mlp_of(transformer: Transformer, x: Tensor) -> Tensor:
    """What the MLP of a layer without experts adds to x, or a rank's part of it."""
    layer = transformer.block.layers[1]
    assert isinstance(layer, Layer)
    return mlp(x, layer.mlp.pre_norm.of(0), layer.mlp.up_gate_proj.of(0), layer.mlp.down_proj.of(0), True)


def test_layers_with_experts_stay_as_they_are_and_memory_is_counted() -> None:
    config = load_model("magihuman_distill").transformer
    with torch.device("meta"):
        transformer = Transformer(config)
    prepare_fp8(transformer)
    small = {name.split(".")[2] for name, tensor in transformer.state_dict().items() if tensor.dtype == DTYPE}
    assert small == {str(n) for n in range(4, 36)}
    held = sum(t.numel() * t.element_size() for t in transformer.state_dict().values())
    said = parameters(config, dtype="bfloat16", fp8=True).num_bytes
    assert held == pytest.approx(said, rel=2e-3)
    assert said < 0.72 * parameters(config, dtype="bfloat16").num_bytes


def test_where_it_cannot_run_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="fp8 gives bfloat16, but compute_dtype is float32"):
        dataclasses.replace(small_model(), fp8=True)
    model = dataclasses.replace(small_model(), fp8=True, compute_dtype="bfloat16")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _device: (8, 0))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _device: "NVIDIA A100")
    with pytest.raises(ValueError, match="fp8: NVIDIA A100 cannot multiply 8-bit floats"):
        Renderer.load(model, LocalWeights("nowhere"), device="cuda:0")
