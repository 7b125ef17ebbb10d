"""Commands that start themselves on another machine: they keep the words that were typed, to say them there."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from pipeline.again import Asked

TYPED = "typed"  # key of such a command's values
SLUG_CHARS = 17  # KubeRay takes names of 47, with a number behind the second of a day
KUBERAY, DRY = "cluster=kuberay", "dry_run=true"


def wants_kuberay(values: Mapping[str, Any]) -> bool:
    return KUBERAY in values[TYPED]


def with_examples(words: Sequence[str], examples: Mapping[str, str]) -> list[str]:
    """A dry run for Kubernetes shows an object whatever was not said: examples stand in its place."""
    if not {KUBERAY, DRY} <= set(words):
        return list(words)
    said = {word.partition("=")[0] for word in words}
    return [*words, *(f"{key}={value}" for key, value in examples.items() if key not in said)]


def there_already(status: str, asked: Asked) -> str:
    """What is said of a job that does what is asked for, or has done it."""
    done = "; every row is done" if asked.left == 0 else ""
    return f"is there already ({status}): nothing is started{done}"


def run_name(address: str, name: str | None, *, day: date | None = None) -> str:
    """A name of a run that Kubernetes takes, and Ray: the same for the same output (and day), so that twice is once.

    `name` says it instead of the output's address.
    """
    digest = hashlib.sha256((name or address).encode()).hexdigest()[:6]
    slug = re.sub(r"[^a-z0-9]+", "-", (name or address.rstrip("/").rpartition("/")[2]).lower()).strip("-")
    parts = ["happyhorse", slug[:SLUG_CHARS].strip("-") or "run", digest]
    return "-".join([*parts, f"{day:%Y%m%d}"] if day else parts)
