"""The released checkpoints' layout, written down once more from the table of spec/model.md, against our modules."""

import math

import pytest
import torch

from model.config import TransformerConfig
from model.parallel import cut_of
from model.weights.sharding import layout_of
from tests.configured import load_model
from tests.large_weights import stored_tensors, tensor_bytes

VARIANTS = {
    "magihuman_base": ("base",),
    "magihuman_distill": ("distill",),
    "magihuman_540p": ("distill", "540p_sr"),
    "magihuman_1080p": ("distill", "1080p_sr"),
    "happyhorse": ("distill", "1080p_sr"),
}
NUM_PARAMETERS, GB = 15_299_419_136, 30.64
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
EXAMPLES = {  # by hand, so that a mistake in the table's formulas shows
    "adapter.text_embedder.weight": ([5120, 3584], "F32"),
    "adapter.rope.bands": ([16], "F32"),
    "block.layers.0.attention.linear_qkv.weight": ([3 * 7208, 5120], "BF16"),
    "block.layers.4.attention.linear_qkv.weight": ([7208, 5120], "BF16"),
    "block.layers.39.attention.q_norm.weight": ([384], "F32"),
    "block.layers.3.mlp.up_gate_proj.weight": ([61_440, 5120], "BF16"),
    "block.layers.4.mlp.up_gate_proj.weight": ([27_304, 5120], "BF16"),
    "block.layers.36.mlp.up_gate_proj.weight": ([81_912, 5120], "BF16"),
    "block.layers.36.mlp.down_proj.weight": ([15_360, 13_652], "BF16"),
    "final_linear_audio.weight": ([64, 5120], "F32"),
}


def configs() -> list[object]:
    found = {name: load_model(name).transformers for name in VARIANTS}
    return [
        pytest.param(config, id=f"{name}-{part}") for name, parts in found.items() for part, config in parts.items()
    ]


@pytest.mark.parametrize(("name", "parts"), VARIANTS.items())
def test_a_variant_reads_the_folders_that_were_released(name: str, parts: tuple[str, ...]) -> None:
    assert tuple(load_model(name).transformers) == parts
    assert "base" in load_model(name, "model.first_stage=base").transformers


@pytest.mark.parametrize("config", configs())
def test_every_released_name_shape_and_dtype_is_matched(config: TransformerConfig) -> None:
    table = stored_tensors(config)
    assert {name: table[name] for name in EXAMPLES} == EXAMPLES
    ours = {name: (list(tensor.shape), tensor.dtype) for name, tensor in layout_of(config).items()}
    assert ours == {name: (shape, DTYPES[dtype]) for name, (shape, dtype) in table.items()}
    parameters = {name: each for name, each in table.items() if name != "adapter.rope.bands"}
    assert sum(math.prod(shape) for shape, _ in parameters.values()) == NUM_PARAMETERS
    assert round(sum(tensor_bytes(*each) for each in table.values()) / 1e9, 2) == GB


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("config", configs()[-2:])
def test_the_slices_of_all_ranks_cover_every_tensor_once(config: TransformerConfig, tp: int) -> None:
    for name, (shape, _) in stored_tensors(config).items():
        cuts = [cut_of(name, config, tp=tp, rank=rank) for rank in range(tp)]
        if cuts[0] is None:
            assert cuts == [None] * tp, name
            continue
        (dim,) = {cut.dim for cut in cuts if cut is not None}
        spans = sorted(
            (piece.start, piece.stop) for cut in cuts if cut for piece in cut.pieces if piece.stop > piece.start
        )
        starts, stops = [start for start, _ in spans], [stop for _, stop in spans]
        assert [0, *stops] == [*starts, shape[dim]], name
        assert len({cut.size for cut in cuts if cut}) == 1, f"{name}: one shape on all ranks"
