"""One forward of a mid-sized Transformer: two ranks against one, bfloat16 against float32; one thread a rank."""

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
REPEATS = 5


def _random_transformer(*, dtype: torch.dtype, tp: int = 1, rank: int = 0) -> Transformer:
    with torch.device("meta"):
        model = Transformer(SHAPE, dtype=dtype)
    shard(model, tp=tp, rank=rank, group=dist.group.WORLD if tp > 1 else None)
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.normal_(std=0.02)
    return model.requires_grad_(False)


def _inputs() -> list[torch.Tensor]:
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


def _rank_main(rank: int, tp: int, port: int, answers: Any) -> None:
    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", port, tp, is_master=False)
    timeout = datetime.timedelta(seconds=120)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=tp, timeout=timeout)
    model, inputs = _random_transformer(dtype=torch.float32, tp=tp, rank=rank), _inputs()
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


@torch.inference_mode()
def figures() -> dict[str, Figure]:
    torch.set_num_threads(1)
    inputs = _inputs()
    single = _random_transformer(dtype=torch.float32)
    one_rank_s = _median_s(lambda: single(*inputs))
    half = _random_transformer(dtype=torch.bfloat16)
    half_s = _median_s(lambda: half(*inputs))
    two_ranks_s = _two_ranks_s()
    torch.set_num_threads(2)
    two_threads_s = _median_s(lambda: single(*inputs))
    return {
        "a forward on one rank, one thread": Figure(value=one_rank_s, unit="s"),
        "two ranks against one, a thread each": Figure(value=one_rank_s / two_ranks_s, unit="x", goal=1.7),
        "one rank with two threads against one": Figure(value=one_rank_s / two_threads_s, unit="x"),
        "bfloat16 against float32": Figure(value=one_rank_s / half_s, unit="x"),
    }
