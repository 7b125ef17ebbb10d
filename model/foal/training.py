"""The loop that trains every part of the foal: resumable, logged, with a moving average of the weights.

Everything a step sees follows from the recipe's seed and the step's number alone, so that resuming is exact.
"""

import copy
import dataclasses
import json
import logging
import math
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.weights.checkpoint import DAMAGED

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of one training."""

    seed: int
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 200
    ema_decay: float = 0.999
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, expected at least 1")
        if not 0 <= self.seed < 1 << 31:
            raise ValueError(f"seed is {self.seed}, expected 0 to {(1 << 31) - 1}")


class Task(ABC):
    """What is trained, and on what. `model` is trained; the trainer keeps its moving average."""

    recipe: Recipe
    model: nn.Module

    @abstractmethod
    def losses(self, step: int, average: nn.Module) -> dict[str, Tensor]:
        """Named parts of the loss of one batch; their sum is minimised."""

    @abstractmethod
    def export(self, average: nn.Module) -> None:
        """Write the weights as the renderer reads them."""


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to a fiftieth."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2)


def build_optimisers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of Transformer layers, AdamW for the rest; Muon needed a third fewer steps than AdamW."""
    is_matrix = {name: ".layers." in name and p.dim() == 2 for name, p in model.named_parameters()}
    matrices = [p for name, p in model.named_parameters() if is_matrix[name]]
    others = [p for name, p in model.named_parameters() if not is_matrix[name]]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=rate, weight_decay=decay, betas=(0.9, 0.98))
    ]
    if matrices:
        optimisers.append(torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return optimisers


class Trainer:
    """Holds what resuming needs: weights, their moving average, the optimisers and the step's number."""

    def __init__(self, task: Task) -> None:
        self.task, self.recipe = task, task.recipe
        self.average = copy.deepcopy(task.model).requires_grad_(False).eval()
        self.optimisers = build_optimisers(task.model, task.recipe)
        self.step = 0

    def advance(self) -> dict[str, float]:
        """One optimiser step; returns the parts of the loss."""
        model = self.task.model.train()
        losses = self.task.losses(self.step, self.average)
        model.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(self.step, self.recipe)
            optimiser.step()
        self.step += 1
        self._follow()
        return {name: loss.item() for name, loss in losses.items()}

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.recipe.ema_decay, (self.step + 1) / (self.step + 10))
        for mean, value in zip(self.average.parameters(), self.task.model.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
        for kept, buffer in zip(self.average.buffers(), self.task.model.buffers(), strict=True):
            kept.copy_(buffer)

    def save(self, path: Path) -> None:
        state = {
            "recipe": dataclasses.asdict(self.recipe),
            "step": self.step,
            "model": self.task.model.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Continue from `save`. Raises ValueError where the recipe is not the one it was saved with."""
        check_state(path, self.recipe)
        state = torch.load(path, weights_only=True, map_location="cpu")
        self.task.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step = state["step"]


def check_state(path: Path, recipe: Recipe) -> None:
    """Raises ValueError where a saved training is one with another recipe; nothing saved is nothing wrong."""
    if not path.exists():
        return
    saved, wanted = _peek(path)["recipe"], dataclasses.asdict(recipe)
    others = [f"{name} {saved.get(name)}, not {value}" for name, value in wanted.items() if saved.get(name) != value]
    if others:
        raise ValueError(f"{path} was trained with {', '.join(others)}: train elsewhere, or remove it")


def is_finished(path: Path) -> bool:
    state = _peek(path)
    return bool(state["step"] == state["recipe"]["steps"])


def _peek(path: Path) -> dict[str, Any]:
    """A saved training without reading its tensors. Raises ValueError where it is none."""
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except DAMAGED as error:
        raise ValueError(f"{path} holds no training that can go on: {error}") from error
    return state


def fit(task: Task, *, out: Path, save_every: int) -> None:
    """Train to the last step, saving as it goes; a second call continues where the first stopped.

    `out` gets state.pt and log.jsonl, one line a step.
    """
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(task)
    state = out / "state.pt"
    if state.exists():
        trainer.resume(state)
        log.info("%s: resumed at step %d", out.name, trainer.step)
    with (out / "log.jsonl").open("a", buffering=1) as lines:  # whole lines, however it ends
        while trainer.step < task.recipe.steps:
            start = time.process_time()
            row: dict[str, float] = {"step": trainer.step + 1}
            row |= {name: round(loss, 5) for name, loss in trainer.advance().items()}
            row["cpu_s"] = round(time.process_time() - start, 3)
            lines.write(json.dumps(row) + "\n")
            if trainer.step % 100 == 0:
                log.info("%s %s", out.name, row)
            if trainer.step % save_every == 0 or trainer.step == task.recipe.steps:
                trainer.save(state)
                task.export(trainer.average)
