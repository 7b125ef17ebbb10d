"""Two people start the same command; then one machine loses its render and starts it again."""

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.runs import Caller, records, said, write_manifest

pytestmark = pytest.mark.e2e

NUM_CLIPS = 60  # more than a run makes while another is started and leaves
SOME_MORE = 4


def test_the_second_run_leaves_and_the_next_takes_over_from_the_dead(caller: Caller, tmp_path: Path) -> None:
    rows = [{"clip_id": f"clip-{n}", "prompt": "A red circle.", "duration": 3, "seed": n} for n in range(NUM_CLIPS)]
    manifest, output = write_manifest(tmp_path / "manifest.parquet", rows), tmp_path / "output"
    with caller.rendering(manifest, output) as first:
        wait_for(lambda: any((output / "lease").glob("*.renewed.json")))
        second = caller.render(manifest, output)
        assert second.returncode == 4, said(second)
        (line,) = [line for line in second.stderr.splitlines() if line.startswith("happyhorse: ")]
        held = (
            rf"happyhorse: {output} is held by run \S+ \(\S+ on \S+, process {first.pid}, since \S+\), which lives; .*"
        )
        assert re.fullmatch(held, line), line
        assert f"process {first.pid}" in second.stderr.split("waiting for")[1]
        wait_for(lambda: bool(records(output)))
        assert first.poll() is None
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=180)
    before = records(output)
    assert len(before) < NUM_CLIPS
    limit = len(before) + SOME_MORE
    third = caller.render(manifest, output, f"limit={limit}")
    assert third.returncode == 0, said(third)
    assert "its process is gone" in third.stderr
    assert "waiting for" not in third.stderr
    after = records(output)
    assert {name: after[name] for name in before} == before
    assert limit <= len(after) < NUM_CLIPS
    audited = caller.run("audit", f"output={output}")
    assert audited.returncode == 0, said(audited)


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
