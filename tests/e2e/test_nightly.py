"""A night with the real thing: two small manifests, one of them bad, in a window that is open now."""

import json
from pathlib import Path

import pytest

from tests.e2e.runs import QUICK, Caller, records, said, write_manifest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_night_of_one_good_and_one_bad_manifest(caller: Caller, tmp_path: Path) -> None:
    inbox, output = tmp_path / "inbox", tmp_path / "output"
    inbox.mkdir()
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat >> {tmp_path / 'notices'}; echo >> {tmp_path / 'notices'}\n")
    hook.chmod(0o755)
    rows = [{"clip_id": f"c{n}", "prompt": "A red circle stays still.", "duration": 3, "seed": n} for n in range(2)]
    write_manifest(inbox / "good.parquet", rows)
    bad = write_manifest(inbox / "bad.parquet", [*rows, {"clip_id": "c0", "prompt": "A twin."}]).read_bytes()
    where = (f"inbox={inbox}", f"output={output}", f"hook={hook}")
    words = ("nightly", *where, "window=00:00-24:00", "timezone=Europe/Berlin", "settle_s=0", *QUICK)

    done = caller.run(*words)
    assert done.returncode == 1, said(done)
    assert "good.parquet is done: 2 clips" in done.stdout
    assert "bad.parquet is rejected: " in done.stdout
    assert sorted(each["clip_id"] for each in records(output / "good").values()) == ["c0", "c1"]
    assert (output / "good" / "_SUCCESS.json").is_file()
    assert "clip_id" in (output / "rejected" / "bad" / "findings.txt").read_text()
    assert (inbox / "bad.parquet").read_bytes() == bad
    assert not (output / "bad").exists()

    before = records(output / "good")
    (inbox / "bad.parquet").unlink()
    again = caller.run(*words)
    assert again.returncode == 0, said(again)
    assert "Ray is ready" not in again.stderr  # nothing is left, so nothing is started
    assert records(output / "good") == before
    notices = [json.loads(line) for line in (tmp_path / "notices").read_text().splitlines()]
    assert [(each["event"], each["manifest"]) for each in notices] == [("failed", "bad"), ("done", "good")]
