"""One forward of a mid-sized Transformer against a plain one, on two ranks, in bfloat16, with both prompts at once."""

import datetime
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import start_processes

from model.config import TransformerConfig
from model.parallel import shard
from model.transformer import Transformer
from tests.bench.figures import Figure
from tests.bench.plain import plain_forward

SHAPE = TransformerConfig(
    num_layers=4,
    hidden_size=1024,
    head_dim=64,
    num_heads_q=16,
    num_heads_kv=4,
    video_in_channels=192,
    audio_in_channels=64,
    text_in_channels=256,
    mm_layers=(0,),
    gelu7_layers=(0,),
    local_attn_layers=(),
    coords_style="v2",
)
VIDEO, AUDIO, TEXT = (1, 48, 16, 22, 22), (1, 61, 64), (1, 64, 256)  # 1,936 video tokens, 2,061 in all
SHORT_VIDEO, NEGATIVE = (1, 48, 4, 12, 12), (1, 48, 256)  # 144 video tokens
REPEATS = 3


def random_transformer(*, dtype: torch.dtype, tp: int = 1, rank: int = 0) -> Transformer:
    with torch.device("meta"):
        model = Transformer(SHAPE, dtype=dtype)
    shard(model, tp=tp, rank=rank, group=dist.group.WORLD if tp > 1 else None)
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.normal_(std=0.02)
    return model.requires_grad_(False)


def random_inputs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in (VIDEO, AUDIO, TEXT)]


def _median_s(run: Callable[[], object]) -> float:
    run()
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def gain(slow: Callable[[], object], fast: Callable[[], object]) -> float:
    """How many times less of a core `fast` takes, by turns, so that a busy machine slows both alike."""
    ratios = []
    for turn in range(REPEATS + 1):
        seconds = []
        for run in (slow, fast):
            began = time.process_time()
            run()
            seconds.append(time.process_time() - began)
        ratios += [seconds[0] / seconds[1]] if turn else []  # the first turn warms up
    return statistics.median(ratios)


def _rank_main(rank: int, tp: int, port: int, answers: Any) -> None:
    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", port, tp, is_master=False)
    timeout = datetime.timedelta(seconds=120)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=tp, timeout=timeout)
    model, inputs = random_transformer(dtype=torch.float32, tp=tp, rank=rank), random_inputs()
    with torch.inference_mode():
        seconds = _median_s(lambda: model(*inputs))
    if rank == 0:
        answers.put(seconds)
    dist.destroy_process_group()


def _two_ranks_s() -> float:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    answers = multiprocessing.get_context("spawn").SimpleQueue()
    start_processes(_rank_main, (2, store.port, answers), nprocs=2, start_method="spawn")
    return float(answers.get())


def _against_plain(model: Transformer) -> float:
    """Seconds of the plain forward over ours, after both gave the same."""
    inputs = random_inputs()
    for ours, plain in zip(model(*inputs), plain_forward(model, *inputs), strict=True):
        error = float((ours - plain).norm() / plain.norm())
        assert error < 3e-2, f"the plain forward is another model: {error}"
    return gain(lambda: plain_forward(model, *inputs), lambda: model(*inputs))


def _one_forward_gain(model: Transformer, video: tuple[int, ...]) -> float:
    """Seconds of a guided step as two forwards over those of one with both prompts."""
    shapes = (video, AUDIO, TEXT, NEGATIVE)
    latent, audio, text, negative = (torch.randn(shape) for shape in shapes)
    return gain(
        lambda: [model(latent, audio, each) for each in (text, negative)],
        lambda: model.forward_each(latent, audio, [text, negative]),
    )


@torch.inference_mode()
def figures() -> dict[str, Figure]:
    torch.set_num_threads(1)
    inputs = random_inputs()
    single, half = (random_transformer(dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    half_gain = gain(lambda: single(*inputs), lambda: half(*inputs))
    plain, plain_half = _against_plain(single), _against_plain(half)
    paired, paired_short = _one_forward_gain(single, VIDEO), _one_forward_gain(single, SHORT_VIDEO)
    one_rank_s, two_ranks_s = _median_s(lambda: single(*inputs)), _two_ranks_s()
    torch.set_num_threads(2)
    two_threads_s = _median_s(lambda: single(*inputs))
    return {
        "a forward on one rank, one thread": Figure(value=one_rank_s, unit="s"),
        "a step against the plain layers, float32": Figure(value=plain, unit="x", goal=1),
        "a step against the plain layers, bfloat16": Figure(value=plain_half, unit="x", goal=1),
        "two ranks against one, a thread each": Figure(value=one_rank_s / two_ranks_s, unit="x", goal=1.7),
        "one rank with two threads against one": Figure(value=one_rank_s / two_threads_s, unit="x"),
        "bfloat16 against float32": Figure(value=half_gain, unit="x"),
        "a guided step in one forward against two, 2,000 tokens": Figure(value=paired, unit="x"),
        "a guided step in one forward against two, 200 tokens": Figure(value=paired_short, unit="x"),
    }
