"""Exports of a real render: the files that it made, playable under their new names, with an index to find them."""

import csv
import shutil
from pathlib import Path

import av
import pytest

from tests.e2e.conftest import Finished
from tests.e2e.runs import Caller, digests, said

pytestmark = pytest.mark.e2e


def test_a_render_is_exported_under_plain_names(caller: Caller, finished: Finished, tmp_path: Path) -> None:
    words = [f"output={finished.output}", f"to={tmp_path}/films", "name={render_resolution}/{clip_id}.{kind}"]
    done = caller.run("export", *words)
    assert done.returncode == 0, said(done)
    with (tmp_path / "films" / "index.csv").open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["clip_id"] for row in rows] == [row["clip_id"] for row in finished.rows]
    recorded = digests(finished.output)
    for row in rows:
        assert row["export_mp4_sha256"] == recorded[row["clip_id"]]["mp4"]
        assert bool(row["export_wav"]) == (row["clip_id"] != "five")
        with av.open(str(tmp_path / "films" / row["export_mp4"])) as clip:
            assert clip.streams.video[0].frames == int(row["render_num_frames"])
    again = caller.run("export", *words)
    assert " there before" in again.stdout, said(again)
    shutil.rmtree(tmp_path / "films")
    assert caller.run("verify", f"output={finished.output}").returncode == 0
