"""The noise levels a stage walks down. sigma 1 is pure noise, 0 is clean."""

import torch
from torch import Tensor

START = 0.999  # of the unshifted grid


def flow_sigmas(steps: int, *, shift: float, start: float = START) -> tuple[Tensor, list[int]]:
    """`steps`+1 float32 sigmas, the last 0, and the truncated integer timestep of each step (of 1000)."""
    u = start * (1 - torch.arange(steps, dtype=torch.float64) / steps)
    sigmas = shift * u / (1 + (shift - 1) * u)
    timesteps = [int(sigma * 1000) for sigma in sigmas.tolist()]
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)]).float(), timesteps
