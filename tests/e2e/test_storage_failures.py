"""Storage that says no: one message and exit code 5, and the same command goes on when the cause is gone."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.runs import Caller, records, said, write_manifest
from tests.s3_server import S3Server
from tests.small_disk import mounted

pytestmark = pytest.mark.e2e
ROWS = [{"clip_id": f"clip-{n}", "prompt": "A red circle.", "duration": 3, "seed": n} for n in range(3)]
ROOM_BYTES = 300_000  # a clip takes about 200,000


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What was said last, alone on its line."""
    assert done.returncode == 5, said(done)
    assert "Traceback" not in done.stdout + done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    (line,) = [line for line in lines if line.startswith(("happyhorse: ", "stopped: "))]
    return line


@pytest.mark.s3
def test_a_bucket_that_cannot_be_used_is_found_before_anything_starts_and_may_be_mended(
    swift_server: S3Server, swift_s3: str, caller: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, output = write_manifest(tmp_path / "manifest.parquet", ROWS[:1]), f"{swift_s3}-later/out"
    missing = caller.render(manifest, output)
    assert f"cannot list {output}/records: the bucket does not exist" in complaint(missing)
    swift_server.create_bucket(f"{swift_s3}-later".removeprefix("s3://"))
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "guess")
        refused = caller.render(manifest, output)
        assert "the credentials were refused" in complaint(refused)
        assert "guess" not in refused.stdout + refused.stderr
    done = caller.render(manifest, output)
    assert done.returncode == 0, said(done)
    assert "several creators at once may all win: leases go by age" in done.stderr
    for early in (missing, refused):
        assert "ray" not in early.stderr.lower(), "nothing was started"


def test_a_disk_that_fills_up_stops_the_run_and_more_room_lets_it_go_on(caller: Caller, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    manifest = write_manifest(tmp_path / "manifest.parquet", ROWS)
    with mounted(tmp_path / "disk", size="8m") as disk:
        output = disk.path / "out"
        with caller.rendering(manifest, output) as process:
            assert process.stdout is not None
            while "to render" not in (line := process.stdout.readline()):
                assert process.poll() is None, line
            seen = os.statvfs(disk.path)
            (disk.path / "filling").write_bytes(bytes(seen.f_bavail * seen.f_bsize - ROOM_BYTES))
            printed, _ = process.communicate(timeout=240)
        full = subprocess.CompletedProcess(process.args, process.returncode, printed, "")
        assert "no space left" in complaint(full)
        before = records(output)
        assert len(before) < len(ROWS)
        (disk.path / "filling").unlink()
        done = caller.render(manifest, output)
        assert done.returncode == 0, said(done)
        after = records(output)
        assert {name: after[name] for name in before} == before
        assert len(after) == len(ROWS)
        checked = caller.run("audit", f"output={output}")
        assert checked.returncode == 0, said(checked)
