"""A run from weights that `weights shard` cut: the same clips, byte for byte, and what is done stays done."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.errors import WeightsError
from pipeline.ledger import Ledger
from pipeline.run import render_manifest
from pipeline.settings import ParallelSettings
from pipeline.store import StorageSettings, open_store
from pipeline.weights.cutting import shard_weights
from tests.cluster.runs import run_settings, write_manifest
from tests.weights import noise_model

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def digests(folder: Path) -> dict[str, dict[str, str]]:
    ledger = Ledger(open_store(str(folder / "out")))
    records = [ledger.read_record(key) for key in ledger.record_keys()]
    return {each.clip_id: {kind: file.sha256 for kind, file in each.finished.files.items()} for each in records}


@pytest.mark.usefixtures("shared_ray")
def test_cut_weights_make_the_same_clips_and_leave_done_ones_alone(weights: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shard_weights(str(weights), str(cut), model=noise_model(), tp=2, storage=StorageSettings())
    whole, other = tmp_path / "whole", tmp_path / "other"
    for folder in (whole, other):
        write_manifest(folder, ["a", "bb"])
    assert render_manifest(run_settings(whole, weights)).num_rendered == 2
    again = render_manifest(run_settings(whole, cut))
    assert (again.exit_code, again.num_rendered, again.num_done_before) == (0, 0, 2)
    assert render_manifest(run_settings(other, cut)).num_rendered == 2
    assert digests(whole) == digests(other)
    with pytest.raises(WeightsError, match="cut for 2 ranks, this run has 1"):
        render_manifest(dataclasses.replace(run_settings(other, cut), parallel=ParallelSettings(tp=1)))
