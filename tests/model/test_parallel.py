"""The table of cuts: every element of every tensor on exactly one rank, whatever the size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import TransformerConfig
from model.parallel import allowed_tp_sizes, check_tp_size, cut_of, local_inner_size, shard
from model.transformer import Transformer


def config(**changes: object) -> TransformerConfig:
    shape: dict[str, object] = {
        "num_layers": 3,
        "hidden_size": 48,
        "head_dim": 8,
        "num_heads_q": 16,
        "num_heads_kv": 8,
        "video_in_channels": 16,
        "audio_in_channels": 8,
        "text_in_channels": 24,
        "mm_layers": (0,),
        "gelu7_layers": (0,),
        "local_attn_layers": (),
        "coords_style": "v2",
    }
    return TransformerConfig(**(shape | changes))  # type: ignore[arg-type]


FULL_SIZE = config(
    num_layers=40,
    hidden_size=5120,
    head_dim=128,
    num_heads_q=40,
    num_heads_kv=8,
    video_in_channels=192,
    audio_in_channels=64,
    text_in_channels=3584,
    mm_layers=(0, 1, 2, 3, 36, 37, 38, 39),
    gelu7_layers=(0, 1, 2, 3),
)


def on_meta(model: TransformerConfig) -> Transformer:
    with torch.device("meta"):
        return Transformer(model)


def test_the_full_size_has_the_released_number_of_parameters() -> None:
    transformer = on_meta(FULL_SIZE)
    assert sum(p.numel() for p in transformer.parameters()) == 15_299_419_136
    assert round(sum(p.numel() * p.element_size() for p in transformer.parameters()) / 1e9, 2) == 30.64
    assert local_inner_size(13_652, 8) == 1_712


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [config(), config(hidden_size=128), FULL_SIZE], ids=["small", "uneven", "15B"])
def test_the_shares_of_all_ranks_cover_each_tensor_once(shape: TransformerConfig, tp: int) -> None:
    for name, parameter in on_meta(shape).named_parameters():
        cuts = [cut_of(name, shape, tp=tp, rank=rank) for rank in range(tp)]
        if cuts[0] is None:
            assert all(cut is None for cut in cuts)
            continue
        assert len({cut.size for cut in cuts if cut}) == 1, "one shape on all ranks"
        seen = torch.zeros(parameter.shape[cuts[0].dim], dtype=torch.int32)
        for cut in cuts:
            for piece in cut.pieces if cut else ():
                seen[piece.start : piece.stop] += 1
        assert bool((seen == 1).all()), name


@settings(max_examples=200, deadline=None)
@given(inner=st.integers(1, 60_000), tp=st.sampled_from([2, 4, 8]))
def test_a_padded_share_is_in_units_of_16_and_no_larger_than_needed(inner: int, tp: int) -> None:
    share = local_inner_size(inner, tp)
    assert share % 16 == 0
    assert share * tp >= inner
    assert (share - 16) * tp < -(-inner // 16) * 16


def test_an_impossible_size_names_those_that_work() -> None:
    assert allowed_tp_sizes(config(num_heads_kv=4)) == (1, 2, 4)
    with pytest.raises(ValueError, match="size 3 does not divide 8 key/value heads; sizes that work: 1, 2, 4, 8"):
        check_tp_size(config(), 3)
    with pytest.raises(ValueError, match="sizes that work: 1, 2, 4"):
        shard(on_meta(config(num_heads_kv=4)), tp=8, rank=0, group=None)
