"""Ranks that lose one of theirs: everybody who waits for anybody is let go, and can meet again."""

import multiprocessing as mp
import os
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from model.parallel import GroupBroken, GroupSum

SIZE, DEAD, ROUND = 5, 1, 3
TIMEOUT = timedelta(seconds=60)  # of the collective: whoever waits for it has not been let go


def sums(total: GroupSum, rank: int, *, rounds: int) -> float:
    """The last of so many sums of all ranks' numbers."""
    answer = 0.0
    for _ in range(rounds):
        answer = float(total(nn.Identity(), (), torch.full((4096,), float(rank)))[0])
    return answer


def work(rank: int, port: int, answers: Any) -> None:
    """Sums until rank 1 dies; then the others leave and meet again, four of them."""
    store = TCPStore("127.0.0.1", port, is_master=False, timeout=TIMEOUT, wait_for_workers=False)
    dist.init_process_group("gloo", store=PrefixStore("first", store), rank=rank, world_size=SIZE, timeout=TIMEOUT)
    total = GroupSum(dist.group.WORLD)
    assert sums(total, rank, rounds=ROUND) == sum(range(SIZE))
    if rank == DEAD:
        os._exit(9)
    began = time.monotonic()
    with suppress(GroupBroken):
        sums(total, rank, rounds=ROUND)
    total.group = None
    dist.destroy_process_group()
    left_s = time.monotonic() - began
    ranks = [each for each in range(SIZE) if each != DEAD]
    dist.init_process_group(
        "gloo", store=PrefixStore("second", store), rank=ranks.index(rank), world_size=len(ranks), timeout=TIMEOUT
    )
    total.group = dist.group.WORLD
    answers.put((rank, left_s, sums(total, rank, rounds=ROUND)))


def test_all_who_live_leave_soon_and_meet_again() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed"])
    answers = context.Queue()
    processes = [context.Process(target=work, args=(rank, store.port, answers)) for rank in range(SIZE)]
    for process in processes:
        process.start()
    try:
        left = sorted(answers.get(timeout=50) for _ in range(SIZE - 1))
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert [rank for rank, _, _ in left] == [0, 2, 3, 4]
    assert max(seconds for _, seconds, _ in left) < 20
    assert {answer for _, _, answer in left} == {0 + 2 + 3 + 4}
