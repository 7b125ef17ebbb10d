"""Times the demo from a cold start (`make bench`): whole command, clips an hour, and seconds of a clip in each stage.

Writes bench.json, so that a change can be shown before and after, side by side. Words are passed on to `render`:
`make bench ARGS="parallel=tp1"`.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run(words: list[str], output: Path) -> float:
    """Seconds of the whole command, start-up of Ray and weights included."""
    happyhorse = str(Path(sys.executable).parent / "happyhorse")
    began = time.perf_counter()
    subprocess.run(
        [happyhorse, "render", f"manifest={ROOT / 'examples' / 'demo.parquet'}", f"output={output}", *words], check=True
    )
    return time.perf_counter() - began


def stages(output: Path) -> dict[str, float]:
    """Median seconds of each stage, over clips."""
    records = [json.loads(path.read_text()) for path in sorted((output / "records").glob("*.json"))]
    names = sorted({name for record in records for name in record["seconds"]})
    return {name: round(statistics.median(record["seconds"].get(name, 0.0) for record in records), 3) for name in names}


def main(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        seconds = run(words, output)
        num_clips = len(list((output / "records").glob("*.json")))
        figures: dict[str, Any] = {
            "words": words,
            "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
            "clips": num_clips,
            "seconds": round(seconds, 1),
            "clips_per_hour": round(num_clips * 3600 / seconds, 1),
            "median_stage_seconds": stages(output),
        }
    (ROOT / "bench.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
