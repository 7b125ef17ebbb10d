"""`python -m tests.chaos [--seed N] [--clips 200]`: a render under fire, from its first clip to its audit."""

import argparse
import sys
from pathlib import Path

from tests.chaos.report import late, show
from tests.chaos.schedule import COUNTS, draw
from tests.chaos.storm import Broken, run_storm


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--only", nargs="*", default=(), choices=COUNTS, help="one of each of these faults")
    parser.add_argument("--limit", type=float, default=1200, help="seconds that the run may take")
    parser.add_argument("--log", type=Path, default=Path("outputs/storm.log"), help="gets what the run said")
    parser.add_argument("--page", type=Path, help="a Markdown file that gets the tables")
    given = parser.parse_args()
    schedule = draw(given.seed, num_clips=given.clips, only=given.only)
    try:
        outcome = run_storm(schedule, given.clips, limit_s=given.limit, log=given.log)
    except Broken as error:
        print(f"storm {given.seed}: {error}\n(what the run said is in {given.log})", file=sys.stderr)
        return 1
    show(outcome, seed=given.seed, page=given.page)
    for line in late(outcome):
        print(line, file=sys.stderr)
    return 1 if late(outcome) else 0


if __name__ == "__main__":
    sys.exit(main())
