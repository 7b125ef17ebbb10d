"""Nothing that somebody puts into a manifest, an image or a sound ends in a traceback, a hang or a full memory.

FUZZ_SECONDS (of each target) and FUZZ_SEED make it longer and different; `python -m tests.fuzz` does so by itself.
"""

import os

import pytest

from tests.fuzz.inputs import SEEDS
from tests.fuzz.runner import fuzz

SECONDS = float(os.environ.get("FUZZ_SECONDS", "8"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(SEEDS))
def test_damaged_files_are_answered(target: str) -> None:
    fuzzed = fuzz(target, seconds=SECONDS, seed=SEED)
    assert fuzzed.cases > 20
    assert 0 < fuzzed.accepted < fuzzed.cases
