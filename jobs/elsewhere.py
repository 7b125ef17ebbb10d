"""Commands that start themselves on another machine: they keep the words that were typed, to say them there."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

TYPED = "typed"  # key of such a command's values
SLUG_CHARS = 20  # KubeRay takes names of 47
KUBERAY, DRY = "cluster=kuberay", "dry_run=true"


def wants_kuberay(values: Mapping[str, Any]) -> bool:
    return KUBERAY in values[TYPED]


def with_examples(words: Sequence[str], examples: Mapping[str, str]) -> list[str]:
    """A dry run for Kubernetes shows an object whatever was not said: examples stand in its place."""
    if not {KUBERAY, DRY} <= set(words):
        return list(words)
    said = {word.partition("=")[0] for word in words}
    return [*words, *(f"{key}={value}" for key, value in examples.items() if key not in said)]


def run_name(address: str, name: str | None, *, day: date | None = None) -> str:
    """A name of a run that Kubernetes takes, and Ray: the same for the same output (and day), so that twice is once.

    `name` says it instead of the output's address.
    """
    digest = hashlib.sha256((name or address).encode()).hexdigest()[:6]
    slug = re.sub(r"[^a-z0-9]+", "-", (name or address.rstrip("/").rpartition("/")[2]).lower()).strip("-")
    parts = ["happyhorse", slug[:SLUG_CHARS].strip("-") or "run", digest]
    return "-".join([*parts, f"{day:%Y%m%d}"] if day else parts)
