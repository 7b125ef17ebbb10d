"""Weights from object storage, and weights with code in them, through the command line."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.cli import main
from pipeline.store import open_store
from tests.e2e.runs import Caller, records, said, write_manifest
from tests.released import TURBO_JSON, released_words, write_turbo

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
FOAL = Path(__file__).parents[2] / "model" / "foal" / "weights"
ROW = {"prompt": "A red circle stays still.", "clip_id": "one", "duration": 3}


@pytest.mark.s3
def test_weights_in_storage_go_through_the_cache_and_are_the_same_weights(
    moto_s3: str, caller: Caller, tmp_path: Path
) -> None:
    store = open_store(f"{moto_s3}/weights")
    for path in FOAL.rglob("*.safetensors"):
        store.put_file(path.relative_to(FOAL).as_posix(), path)
    manifest, output = write_manifest(tmp_path / "manifest.parquet", [ROW]), tmp_path / "output"
    words = (f"weights={store.uri}", f"storage.weights_cache={tmp_path / 'cache'}")
    done = caller.render(manifest, output, *words)
    assert done.returncode == 0, said(done)
    assert list(records(output))
    assert list((tmp_path / "cache").glob("*/*-*"))
    again = caller.render(manifest, output)  # those in the package
    assert (again.returncode, "0 rendered" in again.stdout) == (0, True), said(again)
    assert len(records(output)) == 1


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_code_in_a_checkpoint_is_refused_before_anything_is_started(
    released_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(released_weights, tmp_path / "weights"))
    mark = tmp_path / "it ran"
    shutil.rmtree(root / "turbo_vae")
    write_turbo(root / "turbo_vae", {"decoder.conv_in.conv.weight": Code(mark)}, TURBO_JSON)  # type: ignore[dict-item]
    words = released_words("magihuman_1080p", first_stage="distilled")
    expected = r"turbo_vae/.*\.ckpt is refused, nothing in it was run: .*mkdir"
    assert main(["weights", "check", str(root), *words]) == 1
    out, _ = capsys.readouterr()
    assert re.search(expected, out), out
    assert [line.split()[-1] for line in out.splitlines() if " files " in line].count("ok") == 6, out

    manifest = write_manifest(tmp_path / "manifest.parquet", [ROW])
    assert main(["render", f"manifest={manifest}", f"output={tmp_path / 'output'}", f"weights={root}", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(expected, err), err
    assert not (tmp_path / "output").exists()
    assert not mark.exists()
    (checkpoint,) = (root / "turbo_vae").glob("*.ckpt")
    torch.load(checkpoint, weights_only=False)
    assert mark.exists(), "the file does hold code"


def test_a_stage_in_anothers_place_is_noticed_by_its_weights_alone(
    released_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(released_weights, tmp_path / "weights"))
    words = released_words("magihuman_540p", first_stage="distilled")
    assert main(["weights", "check", str(root), *words]) == 0, capsys.readouterr().out
    shutil.rmtree(root / "540p_sr")
    shutil.copytree(root / "distill", root / "540p_sr")
    assert main(["weights", "check", str(root), *words]) == 1
    assert "distill and 540p_sr hold the same weights" in capsys.readouterr().out
