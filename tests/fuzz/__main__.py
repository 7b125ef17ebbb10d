"""`python -m tests.fuzz [TARGET ...] [--seconds 600] [--seed N]`: damaged files for as long as you like.

`--case N` repeats one case of one target, with its traceback.
"""

import argparse
import subprocess
import sys
import tempfile

from tests.fuzz.inputs import SEEDS
from tests.fuzz.runner import ROOT, Broken, fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", default=sorted(SEEDS), metavar="TARGET", help=", ".join(sorted(SEEDS)))
    parser.add_argument("--seconds", type=float, default=600, help="of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int)
    given = parser.parse_args()
    if given.case is not None:
        return _repeat(given.targets[0], given.seed, given.case)
    broken = 0
    for target in given.targets:
        try:
            print(target, fuzz(target, seconds=given.seconds, seed=given.seed), flush=True)
        except Broken as error:
            print(f"{target}: {error}", flush=True)
            broken = 1
    return broken


def _repeat(target: str, seed: int, case: int) -> int:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        words = ["-X", "faulthandler", "-m", "tests.fuzz.child", target, str(seed), str(case), "0", folder]
        return subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
