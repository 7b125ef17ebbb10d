"""The same command again renders what is missing or has changed, and nothing else."""

import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Finished
from tests.e2e.runs import Caller, records, said, write_manifest

pytestmark = pytest.mark.e2e


def test_nothing_is_rendered_twice_then_exactly_what_changed(
    finished: Finished, caller: Caller, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    shutil.copytree(finished.output, output)
    started = time.monotonic()
    again = caller.render(finished.manifest, output)
    assert again.returncode == 0, said(again)
    assert "0 rendered" in again.stdout
    assert time.monotonic() - started < 20
    before = records(output)
    assert before == records(finished.output)

    rows = {row["clip_id"]: dict(row) for row in finished.rows}
    next((output / "records").glob("one.*.json")).unlink()
    rows["two"]["prompt"] += " In silence."
    rows["three"]["seed"] = 33
    rows["four"]["duration"] = 4
    changed = write_manifest(tmp_path / "changed.parquet", list(rows.values()))
    shutil.copy(finished.manifest.with_name("beeps.flac"), tmp_path)  # which one of the rows names
    some = caller.render(changed, output)
    assert some.returncode == 0, said(some)
    new = {record["clip_id"] for name, record in records(output).items() if before.get(name) != record}
    assert new == {"one", "two", "three", "four"}
    assert "4 rendered" in some.stdout

    everything = caller.render(changed, output, "media.crf=20")
    assert everything.returncode == 0, said(everything)
    assert "6 rendered" in everything.stdout


def test_a_stopped_run_says_so_and_goes_on_where_it_was(caller: Caller, tmp_path: Path) -> None:
    rows = [{"clip_id": f"clip-{n}", "prompt": "A red circle.", "duration": 3, "seed": n} for n in range(16)]
    manifest, output = write_manifest(tmp_path / "manifest.parquet", rows), tmp_path / "output"
    with caller.rendering(manifest, output) as process:
        deadline = time.monotonic() + 120
        while not (output / "records").is_dir() or not records(output):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 3, printed
    assert "the same command goes on from here" in printed
    assert "Traceback" not in printed
    before = records(output)
    rest = caller.render(manifest, output)
    assert rest.returncode == 0, said(rest)
    after = records(output)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(rows)
    assert f"{len(rows) - len(before)} rendered" in rest.stdout


def test_a_stop_while_ray_starts_is_not_lost(finished: Finished, caller: Caller, tmp_path: Path) -> None:
    """Ray puts a SIGTERM handler of its own in place while it starts, which would leave with 15 and without a word."""
    with caller.rendering(finished.manifest, tmp_path / "output") as process:
        assert process.stdout is not None
        while "to render" not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(2.5)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 3, printed
    assert "the same command goes on from here" in printed
