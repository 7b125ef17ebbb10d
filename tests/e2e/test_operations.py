"""A run is paused, looked at, resumed and canceled from outside, and the rest is rendered later."""

import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.e2e.runs import Caller, records, said, write_manifest
from tests.e2e.test_two_runs import wait_for

pytestmark = pytest.mark.e2e

NUM_CLIPS = 24  # more than are done until a cancel is heard
QUICK = ("parallel=tp1", "job.control_s=0.2")


def test_a_run_is_paused_resumed_and_canceled_and_the_rest_is_rendered_later(caller: Caller, tmp_path: Path) -> None:
    rows = [{"clip_id": f"clip-{n}", "prompt": "A red circle.", "duration": 3, "seed": n} for n in range(NUM_CLIPS)]
    manifest, output = write_manifest(tmp_path / "manifest.parquet", rows), tmp_path / "output"

    def ask(command: str, *words: str) -> str:
        done = caller.run(command, f"output={output}", *words)
        assert done.returncode == 0, said(done)
        return done.stdout

    with caller.rendering(manifest, output, *QUICK) as run:
        wait_for(lambda: bool(records(output)))
        ask("pause", "reason=the card is needed")
        wait_for(lambda: run_json(output)["paused"] is not None)
        table = ask("status")
        assert "is at work" in table
        assert "paused    by " in table
        assert "(the card is needed)" in table
        before = len(records(output))
        assert before < NUM_CLIPS
        ask("resume")
        wait_for(lambda: len(records(output)) > before)
        assert "is canceled by" in ask("cancel")
        printed, _ = run.communicate(timeout=300)
    assert run.returncode == 3, printed
    assert "stopped: canceled by " in printed
    states = pq.read_table(output / "results.parquet").column("render_state").to_pylist()
    assert set(states) == {"SUCCEEDED", "CANCELED"}
    assert states.count("SUCCEEDED") == len(records(output))
    left = states.count("CANCELED")
    assert f"{left} CANCELED" in ask("status")

    rest = caller.render(manifest, output, *QUICK)
    assert rest.returncode == 0, said(rest)
    assert f"{NUM_CLIPS} clips: {left} rendered, {NUM_CLIPS - left} done before" in rest.stdout
    log = ask("logs", f"clip=clip-{NUM_CLIPS - 1}").splitlines()
    assert log[0].startswith(f"clip clip-{NUM_CLIPS - 1}, attempt ")
    assert any("given to group-0" in line for line in log)
    assert log[-1].startswith(f"recorded in records/clip-{NUM_CLIPS - 1}.")
    assert f"{left} to render" in ask("logs")
    assert not list((output / "control").glob("*.json"))


def run_json(output: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads((output / "run.json").read_text())
    return values


def test_a_paused_output_starts_nothing(caller: Caller, tmp_path: Path) -> None:
    rows = [{"clip_id": "a", "prompt": "A red circle.", "duration": 3}]
    manifest, output = write_manifest(tmp_path / "manifest.parquet", rows), tmp_path / "output"
    (output / "control").mkdir(parents=True)
    (output / "control" / "pause.json").write_text('{"user": "ann", "host": "h", "at": "noon"}')
    refused: subprocess.CompletedProcess[str] = caller.render(manifest, output)
    assert refused.returncode == 3, said(refused)
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("happyhorse: ")]
    assert line == (
        f"happyhorse: {output} was paused by ann on h at noon: nothing was started; "
        f"`happyhorse resume output={output}` lets it go on"
    )
    assert [path.name for path in output.iterdir()] == ["control"]
