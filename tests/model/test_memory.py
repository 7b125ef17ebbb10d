"""The stated formula for activations against what real forwards allocate, and the size that fits a card."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from model.config import TransformerConfig
from model.memory import HEADROOM, UNCERTAINTY, activation_bytes, card_memory, smallest_fitting_tp, surroundings
from model.parallel import shard
from model.placing import Placing
from model.shapes import ClipShape, clip_shape
from model.transformer import Transformer
from tests.allocations import Allocations
from tests.configured import load_model

LATENT = (48, 8, 32, 32)
AUDIO, TEXT = 101, 200
LOCAL: dict[str, object] = {"local_attn_layers": (1,), "frame_receptive_field": 2}


def config(**changes: object) -> TransformerConfig:
    """The released proportions at an eighth of the width."""
    values: dict[str, object] = {
        "num_layers": 3,
        "hidden_size": 640,
        "head_dim": 16,
        "num_heads_q": 40,
        "num_heads_kv": 8,
        "video_in_channels": 192,
        "audio_in_channels": 64,
        "text_in_channels": 448,
        "mm_layers": (0, 2),
        "gelu7_layers": (0,),
        "local_attn_layers": (),
        "coords_style": "v2",
    }
    return TransformerConfig(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def alone() -> Iterator[None]:
    """Sums that do nothing, so that a sharded model can be run without its peers.

    Gloo's thread lets go of a summed tensor now and then only milliseconds after the sum is there: one more would live.
    """
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("changes", "tp"),
    [*(({}, tp) for tp in (1, 2, 4, 8)), ({"gelu7_layers": ()}, 1), ({"gelu7_layers": (0, 1, 2)}, 1), (LOCAL, 4)],
    ids=["tp1", "tp2", "tp4", "tp8", "gated", "plain", "local-tp4"],
)
def test_a_forward_allocates_what_the_formula_says(changes: dict[str, object], tp: int) -> None:
    shape = config(**changes)
    with torch.device("meta"):
        transformer = Transformer(shape)
    shard(transformer, tp=tp, rank=0, group=None)
    transformer = transformer.to_empty(device="cpu").eval().requires_grad_(False)
    for parameter in transformer.parameters():
        torch.nn.init.zeros_(parameter)
    transformer.adapter.rope.bands.zero_()
    video, audio, text = torch.zeros(1, *LATENT), torch.zeros(1, AUDIO, 64), torch.zeros(1, TEXT, 448)
    with torch.inference_mode(), Allocations() as made:
        transformer(video, audio, text)
    tokens = LATENT[1] * LATENT[2] * LATENT[3] // 4 + AUDIO + TEXT
    assert tokens > 2000
    said = activation_bytes(shape, tokens=tokens, tp=tp)
    assert 0.85 * said <= made.peak_bytes <= 1.05 * said, made.peak_bytes / said


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("tp", [1, 4])
def test_a_long_sequence_goes_through_the_mlp_in_slices(monkeypatch: pytest.MonkeyPatch, tp: int) -> None:
    whole = activation_bytes(config(), tokens=2349, tp=1)
    monkeypatch.setattr("model.layers.SLICE_TOKENS", 512)
    assert activation_bytes(config(), tokens=2349, tp=1) < 0.9 * whole
    test_a_forward_allocates_what_the_formula_says({"gelu7_layers": ()}, tp)


def shapes(name: str, resolution: str) -> list[ClipShape]:
    return [clip_shape(load_model(name), resolution=resolution, ratio="16:9", duration_s=5)]


def test_the_smallest_size_that_fits_falls_as_cards_grow() -> None:
    model = load_model("magihuman_1080p")
    sizes = [
        smallest_fitting_tp(model, card_bytes=gb * 10**9, shapes=shapes("magihuman_1080p", "1080P"))
        for gb in (4, 24, 40, 48, 80, 141)
    ]
    assert sizes[0] is None
    assert sizes[-1] == 1
    fitting = [size for size in sizes if size is not None]
    assert fitting == sorted(fitting, reverse=True)
    assert set(fitting) <= {1, 2, 4, 8}


def test_what_larger_activations_would_not_leave_room_for_is_tight() -> None:
    memory = card_memory(load_model("magihuman_1080p"), tp=1, shapes=shapes("magihuman_1080p", "1080P"))
    holds = memory.total / (1 - HEADROOM)
    holds_more = (memory.total + UNCERTAINTY * memory.activations) / (1 - HEADROOM)
    said = [memory.fit(round(num_bytes)) for num_bytes in (holds - 10, holds + 10, holds_more - 10, holds_more + 10)]
    assert said == ["no", "tight", "tight", "fits"]


def placed(stages: str, **changes: object) -> Placing:
    return Placing(stages=stages, **changes)  # type: ignore[arg-type]


def test_what_is_not_on_the_card_is_not_counted() -> None:
    model, at = load_model("magihuman_1080p"), shapes("magihuman_1080p", "1080P")
    whole, swapped, offloaded = (
        card_memory(model, tp=1, shapes=at, placing=placed(stages)) for stages in ("resident", "swapped", "offloaded")
    )
    assert whole.held == sum(whole.weights.values())
    assert swapped.held == max(swapped.weights.values())
    linears = 5120 * (40 * 129 + 2 * 8 * 128 + 40 * 128 + 3 * 13652)
    assert offloaded.held == pytest.approx(3 * 2 * linears, rel=1e-3)  # of a layer with three experts
    assert whole.activations == swapped.activations == offloaded.activations
    kept = card_memory(model, tp=1, shapes=at, placing=placed("offloaded", stages_gb=20))
    assert kept.held == 20 * 10**9


def test_a_group_that_has_one_stage_alone_is_counted_by_the_larger() -> None:
    model, large = load_model("magihuman_1080p"), shapes("magihuman_1080p", "1080P")
    apart, swapped = (card_memory(model, tp=1, shapes=large, placing=placed(each)) for each in ("apart", "swapped"))
    assert (apart.held, apart.activations) == (max(apart.weights.values()), swapped.activations)
    foal = load_model("foal")
    small, large = shapes("foal", "64P"), shapes("foal", "128P")
    first, both = (card_memory(foal, tp=1, shapes=each, placing=placed("apart")) for each in (small, large))
    assert first.held == both.held == first.weights["base"] > first.weights["128p_sr"]
    whole = card_memory(foal, tp=1, shapes=large)
    assert both.activations < whole.activations, "those of super-resolution, which has few weights, are elsewhere"


def test_a_group_of_one_stage_is_counted_by_that_stage() -> None:
    model, large = load_model("magihuman_1080p"), shapes("magihuman_1080p", "1080P")
    first, second = model.transformers
    drafting, enlarging, either = (
        card_memory(model, tp=1, shapes=large, placing=placed("apart"), parts=parts)
        for parts in ([first], [second], None)
    )
    assert (list(drafting.weights), drafting.held) == ([first], drafting.weights[first])
    at_256p = card_memory(load_model("magihuman_distill"), tp=1, shapes=shapes("magihuman_distill", "256P"))
    assert drafting.activations == at_256p.activations < enlarging.activations
    assert (list(enlarging.weights), enlarging.total) == ([second], either.total)
    unused = card_memory(model, tp=1, shapes=shapes("magihuman_1080p", "256P"), placing=placed("apart"), parts=[second])
    assert unused.held == enlarging.held


@pytest.mark.parametrize(
    ("stages", "sizes"),
    [("resident", [8, 4, 2, 1]), ("swapped", [4, 2, 1, 1]), ("apart", [4, 2, 1, 1]), ("offloaded", [1, 1, 1, 1])],
)
def test_cards_of_24_40_48_and_80_gb_hold_1080p(stages: str, sizes: list[int]) -> None:
    model, at = load_model("magihuman_1080p"), shapes("magihuman_1080p", "1080P")
    fitting = [
        smallest_fitting_tp(model, card_bytes=gb * 10**9, shapes=at, placing=placed(stages)) for gb in (24, 40, 48, 80)
    ]
    assert fitting == sizes


def test_a_stage_at_256p_needs_its_weights_and_little_more() -> None:
    model = load_model("magihuman_distill")
    memory = card_memory(model, tp=1, shapes=shapes("magihuman_distill", "256P"))
    assert memory.weights["distill"] / 1e9 == pytest.approx(30.64, abs=0.005)
    assert memory.total / 1e9 == pytest.approx(34, abs=1.5)
    assert smallest_fitting_tp(model, card_bytes=40 * 10**9, shapes=shapes("magihuman_distill", "256P")) == 1


def test_what_runs_beside_is_counted_apart() -> None:
    model = load_model("magihuman_1080p", "model.codecs.band_rows=0")
    beside = surroundings(model, shapes=shapes("magihuman_1080p", "1080P"), has_images=True)
    assert beside.text.weights / 1e9 == pytest.approx(18.5, abs=0.1)
    assert beside.images is not None
    alone = smallest_fitting_tp(model, card_bytes=141 * 10**9, shapes=shapes("magihuman_1080p", "1080P"))
    crowded = smallest_fitting_tp(
        model, card_bytes=141 * 10**9, shapes=shapes("magihuman_1080p", "1080P"), beside_bytes=beside.total
    )
    assert crowded is None or crowded > (alone or 0)


def test_one_forward_for_both_prompts_doubles_the_activations() -> None:
    one, both = (load_model("magihuman_base", f"model.one_forward={word}") for word in ("false", "true"))
    at = shapes("magihuman_base", "256P")
    grown = card_memory(both, tp=1, shapes=at).activations / card_memory(one, tp=1, shapes=at).activations
    assert grown == pytest.approx(2, rel=0.15)
