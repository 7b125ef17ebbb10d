"""What `plan` says a second run will take, against what it then takes on this machine."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.runs import Caller, records, said, write_manifest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STEPS = 6
TRIES = 3  # other work on the machine comes and goes; the prediction is made anew before each
WITHIN = 0.25


def manifest(folder: Path, seed: int) -> Path:
    rows = [
        {"clip_id": f"c{seed}-{n}", "prompt": "A red circle stays still.", "duration": 3 + n % 2, "seed": seed + n}
        for n in range(6)
    ]
    return write_manifest(folder / f"seed{seed}.parquet", rows)


def planned(caller: Caller, path: Path, output: Path, *words: str) -> dict[str, Any]:
    done = caller.run("plan", f"manifest={path}", f"output={output}", f"model.sampling.steps={STEPS}", *words)
    assert done.returncode == 0, said(done)
    assert "clips" in done.stdout
    read: dict[str, Any] = json.loads(done.stdout)  # nothing but JSON on stdout
    return read


def rendered(caller: Caller, path: Path, output: Path) -> float:
    """Seconds by the run's own last line."""
    words = (f"manifest={path}", f"output={output}", f"model.sampling.steps={STEPS}")
    done = caller.run("render", *words)
    assert done.returncode == 0, said(done)
    match = re.search(r"6 rendered, in (\d+) s", done.stdout)
    assert match is not None, done.stdout
    return float(match[1])


def test_a_second_run_takes_what_the_plan_said(caller: Caller, tmp_path: Path) -> None:
    output = tmp_path / "output"
    first = manifest(tmp_path, 0)
    before = planned(caller, first, output, "format=json")
    assert before["clips"]["to_render"] == 6
    assert before["estimate"]["seconds"] is None
    assert "no estimate before a first run" in before["estimate"]["notes"][0]
    rendered(caller, first, output)
    after = planned(caller, first, output, "format=json")
    assert (after["clips"]["to_render"], after["clips"]["done"]) == (0, 6)
    assert after["estimate"]["seconds"] == 0

    ratios = []
    for number in range(1, TRIES + 1):
        path = manifest(tmp_path, number * 100)
        estimate = planned(caller, path, output, "format=json")["estimate"]
        assert estimate["basis"] == "measured"
        took = rendered(caller, path, output)
        ratios.append(estimate["seconds"] / took)
        print(f"planned {estimate['seconds']:.1f} s, took {took:.0f} s")
        if abs(ratios[-1] - 1) <= WITHIN:
            break
    else:
        pytest.fail(f"planned times were {', '.join(f'{ratio:.2f}' for ratio in ratios)} of what the runs took")

    delivered = sum(file["size_bytes"] for record in records(output).values() for file in record["files"].values())
    assert estimate["num_bytes"] == pytest.approx(delivered / (1 + len(ratios)), rel=0.1)


def test_a_run_leaves_its_history_in_a_few_kilobytes(caller: Caller, tmp_path: Path) -> None:
    output = tmp_path / "output"
    path = manifest(tmp_path, 7)
    assert caller.render(path, output).returncode == 0
    (left,) = (output / "history").iterdir()
    assert left.stat().st_size < 4096
    values = json.loads(left.read_text())
    assert sum(kind["count"] for kind in values["kinds"]) == values["num_rendered"] == 6
    assert json.loads((output / "run.json").read_text())["run_id"] == left.stem
