"""The plan's sum against what a GPU allocates, where there is one; with torch, safetensors and pytest alone:

python -m pytest -q -c /dev/null --rootdir=. --noconftest tests/model/test_memory_cuda.py
"""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from model.config import TransformerConfig
from model.cost import parameters
from model.memory import UNCERTAINTY, activation_bytes
from model.offloading import Swapped
from model.parallel import shard
from model.transformer import Transformer

LATENT = (48, 12, 32, 56)  # 5,376 tokens of video
AUDIO, TEXT = 46, 300
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="no GPU here: nothing is held against what a card allocates")


def config(**changes: object) -> TransformerConfig:
    """The 15B's layers, but six of them: a card of 16 GB does."""
    values: dict[str, object] = {
        "num_layers": 6,
        "hidden_size": 5120,
        "head_dim": 128,
        "num_heads_q": 40,
        "num_heads_kv": 8,
        "video_in_channels": 192,
        "audio_in_channels": 64,
        "text_in_channels": 3584,
        "mm_layers": (0, 5),
        "gelu7_layers": (0,),
        "local_attn_layers": (),
        "coords_style": "v2",
    }
    return TransformerConfig(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def alone() -> Iterator[None]:
    """Sums that do nothing, so that one rank of several can be run without the others."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def built(shape: TransformerConfig, *, tp: int, device: str) -> Transformer:
    with torch.device("meta"):
        transformer = Transformer(shape)
    shard(transformer, tp=tp, rank=0, group=None)
    transformer = transformer.to_empty(device=device).eval().requires_grad_(False)
    for tensor in transformer.state_dict().values():
        tensor.zero_()
    return transformer


@torch.inference_mode()
def run(transformer: Transformer, latent: tuple[int, ...] = LATENT) -> int:
    """One forward; its tokens."""
    shape = transformer.config
    video = torch.zeros(1, *latent, device=DEVICE)
    audio = torch.zeros(1, AUDIO, shape.audio_in_channels, device=DEVICE)
    text = torch.zeros(1, TEXT, shape.text_in_channels, device=DEVICE)
    transformer(video, audio, text)
    return latent[1] * latent[2] * latent[3] // 4 + AUDIO + TEXT


@needs_gpu
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("tp", [1, 4])
def test_a_cuda_card_allocates_what_the_plan_says(tp: int) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    transformer = built(config(), tp=tp, device=DEVICE)
    weights = torch.cuda.memory_allocated() - before
    assert weights == pytest.approx(parameters(config(), dtype="bfloat16", tp=tp).num_bytes, rel=0.01)
    run(transformer)  # libraries take their workspaces
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    tokens = run(transformer)
    measured = torch.cuda.max_memory_allocated() - before - weights
    said = activation_bytes(config(), tokens=tokens, tp=tp)
    print(f"tp{tp}: {measured / 1e9:.3f} GB of activations measured, {said / 1e9:.3f} GB said: {measured / said:.2f}")
    assert (1 - UNCERTAINTY) * said <= measured <= (1 + UNCERTAINTY) * said


@needs_gpu
def test_swapped_stages_take_a_cuda_card_one_at_a_time() -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    stages = [built(config(num_layers=2, mm_layers=(0,)), tp=1, device="cpu") for _ in range(2)]
    swapped = [Swapped(stage, device=DEVICE) for stage in stages]
    one = sum(each.nbytes for each in stages[0].parameters())
    for stage, swap in zip(stages, swapped, strict=True):
        with swap.at_work():
            assert torch.cuda.memory_allocated() - before == pytest.approx(one, rel=0.05)  # with workspaces
            run(stage)
        torch.cuda.synchronize()
        assert torch.cuda.memory_allocated() - before < 0.1 * one


def test_the_cuda_tests_run_what_they_measure() -> None:
    """On any machine, at a small size: a mistake in them shows before there is a card."""
    small = config(hidden_size=320, head_dim=16, num_heads_q=20, num_heads_kv=4, num_layers=2, mm_layers=(0,))
    stage = built(small, tp=1, device="cpu").to(DEVICE)
    assert run(stage, (48, 2, 4, 6)) == 12 + AUDIO + TEXT
