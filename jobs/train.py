"""`happyhorse train foal`: what `python -m model.foal.train` does, with the values of `conf/train.yaml`.

Exit 0 trained, 2 nothing was started, 3 stopped (the same command goes on), 5 the disk failed. Where it was trained to
the end already, nothing is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from jobs.typed import build
from model.foal.train import plan, train
from pipeline.errors import ConfigError, StoreError


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    name: Literal["foal"]
    out: str
    parts: tuple[str, ...]
    steps: int | None
    seed: int | None
    threads: int
    device: Literal["auto", "cpu", "cuda"]
    save_every: int

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts is empty, expected at least one")
        for name in ("threads", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")


def train_model(values: Mapping[str, Any]) -> int:
    settings = build(TrainSettings, {key: value for key, value in values.items() if key != "job"}, at="")
    out, device = Path(settings.out), _device(settings.device)
    if "://" in settings.out or (out.exists() and not out.is_dir()):
        raise ConfigError(f"out: got {settings.out}, expected a folder on this machine")
    try:
        recipes = plan(settings.parts, steps=settings.steps, seed=settings.seed, out=out)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    torch.set_num_threads(settings.threads)
    for part, recipe in recipes.items():
        try:
            train(part, recipe, out=out, save_every=settings.save_every, device=device)
        except OSError as error:
            raise StoreError(f"{part}: {error}") from error
        print(f"{part}: trained {recipe.steps} steps, see {out / part / 'curves.svg'}")
    return 0


def _device(wanted: str) -> str:
    is_there = torch.cuda.is_available()
    if wanted == "cuda" and not is_there:
        raise ConfigError("device=cuda: there is no GPU that this torch can use; expected cpu or auto")
    return "cuda" if wanted == "auto" and is_there else wanted.replace("auto", "cpu")
