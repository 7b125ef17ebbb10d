"""What a rank says that does not get its weights onto its card, without Ray."""

from pathlib import Path

import pytest
import torch

from model.memory import card_memory
from model.placing import GB, Placing
from pipeline.errors import GroupLost
from pipeline.rank_worker import RankWorker
from pipeline.requests import smallest_shape
from pipeline.settings import ClusterSettings
from pipeline.store import StorageSettings
from pipeline.types import Stage
from pipeline.worker import Workplace
from tests.clips import MEDIA
from tests.configured import load_model


@pytest.mark.parametrize(("stage", "at"), [("render", 0), ("enlarge", 1)])
def test_where_stages_are_apart_it_speaks_of_its_own(
    stage: Stage, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory (made by a test)")

    monkeypatch.setattr("model.renderer.Renderer.load", full)
    model, placing = load_model("magihuman_1080p"), Placing(stages="apart")
    place = Workplace(
        model=model,
        weights=str(tmp_path),
        output=str(tmp_path / "out"),
        storage=StorageSettings(),
        media=MEDIA,
        threads=1,
        device="cpu",
        placing=placing,
    )
    with pytest.raises(GroupLost) as lost:
        RankWorker(place, rank=0, world_size=4, cluster=ClusterSettings(), stage=stage).load()
    part = list(model.transformers)[at]
    needed = card_memory(model, tp=4, shapes=[smallest_shape(model)], placing=placing, parts=[part])
    weights, activations = (f"{size / GB:.1f} GB" for size in (needed.held, needed.activations))
    assert f"weights {weights} ({part} {weights}, apart), activations {activations}" in str(lost.value)
