"""One run over a table against a launch for every prompt, and where a clip's time goes."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.figures import Figure

NUM_CLIPS = 4
HAPPYHORSE = Path(sys.executable).parent / "happyhorse"


def _rows() -> list[dict[str, Any]]:
    colours = ("red", "blue", "green", "pink")
    return [
        {"clip_id": f"clip-{n}", "prompt": f"A {colours[n]} circle bounces on white.", "duration": 3, "seed": n}
        for n in range(NUM_CLIPS)
    ]


def _render_s(folder: Path, rows: list[dict[str, Any]]) -> float:
    """Seconds of the whole command, start-up of Ray and weights included."""
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "manifest.parquet")
    began = time.perf_counter()
    command = [str(HAPPYHORSE), "render", f"manifest={folder / 'manifest.parquet'}", f"output={folder / 'output'}"]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def _stage_seconds(output: Path) -> dict[str, float]:
    """Median over clips."""
    found = [json.loads(path.read_text())["seconds"] for path in sorted((output / "records").glob("*.json"))]
    return {stage: statistics.median(seconds.get(stage, 0.0) for seconds in found) for stage in found[0]}


def figures() -> dict[str, Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        together_s = _render_s(folder / "together", _rows())
        alone_s = sum(_render_s(folder / f"alone-{n}", [row]) for n, row in enumerate(_rows()))
        stages = _stage_seconds(folder / "together" / "output")
    results = {
        f"{NUM_CLIPS} clips in one run against a launch each": Figure(value=alone_s / together_s, unit="x", goal=2)
    }
    return results | {f"median seconds of a clip, {stage}": Figure(value=s, unit="s") for stage, s in stages.items()}
