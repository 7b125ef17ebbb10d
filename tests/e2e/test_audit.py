"""The audit of a real render: nothing is found where nothing was done, and what was done is."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.conftest import Finished
from tests.e2e.runs import Caller, records, said

pytestmark = pytest.mark.e2e


def test_a_real_render_and_what_was_done_to_it(finished: Finished, caller: Caller, tmp_path: Path) -> None:
    elsewhere = replace(caller, folder=tmp_path)  # than where it was rendered, from a path relative to that
    sound = elsewhere.run("audit", f"output={finished.output}", "format=json")
    assert sound.returncode == 0, said(sound)
    values = json.loads(sound.stdout)
    assert values["rows"] == {"SUCCEEDED": 6, "FAILED": 0, "PENDING": 0, "INVALID": 0}
    assert (values["records"], values["superseded"], values["files"]["count"]) == (6, 0, 17)
    assert (values["orphans"]["count"], values["lease"]) == (0, {"holder": None, "stale": 0})

    output = tmp_path / "output"
    shutil.copytree(finished.output, output)
    wavs = {
        each["clip_id"]: output / each["files"]["wav"]["name"]
        for each in records(output).values()
        if "wav" in each["files"]
    }
    one, two = wavs["one"].read_bytes(), wavs["two"].read_bytes()
    wavs["one"].write_bytes(two)
    wavs["two"].write_bytes(one)
    next((output / "records").glob("three.*.json")).unlink()
    damaged = caller.run("audit", f"output={output}")
    assert damaged.returncode == 1, said(damaged)
    assert "findings: 3." in damaged.stdout
    for name in (wavs["one"].name, wavs["two"].name, "says that clip three is done"):
        assert name in damaged.stdout
