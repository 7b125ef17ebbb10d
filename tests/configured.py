"""The models of `conf/model`, as commands see them."""

from functools import cache

from jobs.compose import compose_values
from jobs.typed import build
from jobs.words import read_words
from model.config import ModelConfig


@cache  # to compose takes half a second
def load_model(name: str, *words: str) -> ModelConfig:
    values = compose_values("render", read_words(["manifest=m", "output=o", f"model={name}", *words]))
    return build(ModelConfig, values["model"], at="model")
