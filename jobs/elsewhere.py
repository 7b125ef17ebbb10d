"""Commands that start themselves on another machine: they keep the words that were typed, to say them there."""

from collections.abc import Mapping, Sequence
from typing import Any

TYPED = "typed"  # key of such a command's values
KUBERAY, DRY = "cluster=kuberay", "dry_run=true"


def wants_kuberay(values: Mapping[str, Any]) -> bool:
    return KUBERAY in values[TYPED]


def with_examples(words: Sequence[str], examples: Mapping[str, str]) -> list[str]:
    """A dry run for Kubernetes shows an object whatever was not said: examples stand in its place."""
    if not {KUBERAY, DRY} <= set(words):
        return list(words)
    said = {word.partition("=")[0] for word in words}
    return [*words, *(f"{key}={value}" for key, value in examples.items() if key not in said)]
