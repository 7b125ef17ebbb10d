"""Starts children that read damaged files, and says which file it was when one of them dies, hangs or grows."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.child import MAX_SECONDS

ROOT = Path(__file__).parents[2]
START_S = 120  # importing torch on a busy machine


@dataclass(frozen=True, kw_only=True)
class Fuzzed:
    cases: int
    accepted: int  # those that were still valid
    grown_mb: int  # of memory's peak, above what undamaged files take


class Broken(AssertionError):
    """A case that ended in anything but an answer."""


def fuzz(target: str, *, seconds: float, seed: int = 0, first: int = 0) -> Fuzzed:
    """Raises `Broken`, with the words that repeat the case."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        words = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.child"]
        words += [target, str(seed), str(first), str(seconds), folder]
        child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = child.communicate(timeout=START_S + seconds + 2 * MAX_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
            err += "\nhangs"
        if child.returncode:
            number = (Path(folder) / "number").read_text() if (Path(folder) / "number").exists() else "?"
            again = f"python -m tests.fuzz {target} --seed {seed} --case {number}"
            raise Broken(f"exit {child.returncode}; again: {again}\n{err[-3000:]}")
    return Fuzzed(**json.loads(out.splitlines()[-1]))
