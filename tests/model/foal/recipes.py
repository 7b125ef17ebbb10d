"""Trainings of seconds, long enough for a loss to fall and for a moving average to differ from what it follows."""

from collections.abc import Mapping

from model.foal.training import Recipe

RECIPES: Mapping[str, Recipe] = {
    "codec": Recipe(seed=1, steps=60, batch_size=2, learning_rate=1e-3, warmup_steps=5),
    "base": Recipe(seed=1, steps=16, batch_size=2, learning_rate=4e-3, warmup_steps=4),
    "distilled": Recipe(seed=2, steps=4, batch_size=1, learning_rate=1e-3, warmup_steps=2),
    "super_resolution": Recipe(seed=3, steps=4, batch_size=1, learning_rate=2e-3, warmup_steps=2),
}
