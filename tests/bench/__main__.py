"""`make bench`: every figure is a ratio of two things measured side by side in this run. Writes bench.json.

bench.json is `{section: {name: {value, unit, goal, met}}}`; goal and met are null where a figure is only reported.
Words name sections (`make bench ARGS=model`); without words, all.
"""

import json
import sys
from pathlib import Path

from tests.bench import compiled, decode, fp8, manifest, model, pipeline, step_cache
from tests.bench.figures import Figure, show

SECTIONS = {
    "model": model.figures,
    "compiled": compiled.figures,
    "fp8": fp8.figures,
    "step_cache": step_cache.figures,
    "decode": decode.figures,
    "pipeline": pipeline.figures,
    "manifest": manifest.figures,
}
TARGET = Path(__file__).parents[2] / "bench.json"


def main(words: list[str]) -> int:
    unknown = [word for word in words if word not in SECTIONS]
    if unknown:
        print(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    results: dict[str, dict[str, Figure]] = {}
    for name in words or SECTIONS:
        results[name] = SECTIONS[name]()
        show(name, results[name])
    TARGET.write_text(json.dumps({s: {n: f.values() for n, f in fs.items()} for s, fs in results.items()}, indent=1))
    print(f"written to {TARGET.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
