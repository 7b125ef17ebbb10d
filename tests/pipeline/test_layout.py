"""The size of a group where nobody says it: by the weights' cut, by the cards, one on CPUs."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.compose import compose_values
from jobs.settings import run_settings
from jobs.words import read_words
from model.config import ModelConfig
from model.placing import Placing, StagePlace
from model.shapes import ClipShape, clip_shape
from model.weights import LocalWeights
from pipeline.errors import ConfigError
from pipeline.layout import settle, settle_before
from pipeline.settings import ParallelSettings
from pipeline.store import StorageSettings
from pipeline.weights.cutting import shard_weights
from tests.weights import noise_model, write_weights

AUTO = ParallelSettings(tp=None)


def large(name: str = "magihuman_1080p") -> ModelConfig:
    return run_settings(compose_values("render", read_words([f"model={name}", "manifest=m", "output=o"]))).model


def shapes(model: ModelConfig) -> list[ClipShape]:
    return [clip_shape(model, resolution=model.default_resolution, ratio="16:9", duration_s=5)]


def node(kind: str, gpus: int = 8) -> dict[str, float]:
    return {"CPU": 16.0, "GPU": float(gpus), f"accelerator_type:{kind}": 1.0}


@pytest.mark.parametrize(("kind", "tp"), [("H200", 1), ("H100", 1), ("L40S", 2), ("A100-40G", 4), ("A10G", 8)])
def test_the_smallest_that_the_cards_hold(kind: str, tp: int) -> None:
    model = large()
    chosen = settle(AUTO, model=model, shapes=shapes(model), device="cuda", nodes=[{"CPU": 8.0}, node(kind)])
    assert chosen.tp == tp


@pytest.mark.parametrize(("stages", "tp"), [("resident", 2), ("swapped", 1), ("offloaded", 1)])
def test_stages_that_are_not_all_on_the_card_fit_smaller_groups(stages: StagePlace, tp: int) -> None:
    model, placing = large(), Placing(stages=stages)
    chosen = settle(AUTO, model=model, shapes=shapes(model), device="cuda", nodes=[node("L40S")], placing=placing)
    assert chosen.tp == tp


def test_the_smallest_card_of_a_mixed_cluster_decides() -> None:
    model = large()
    nodes = [node("H200"), node("L40S")]
    assert settle(AUTO, model=model, shapes=shapes(model), device="cuda", nodes=nodes).tp == 2


def test_one_on_cpus_and_whatever_was_said_stays() -> None:
    model = large()
    assert settle(AUTO, model=model, shapes=shapes(model), device="cpu", nodes=[{"CPU": 2.0}]).tp == 1
    said = ParallelSettings(tp=4)
    assert settle(said, model=model, shapes=shapes(model), device="cuda", nodes=[node("H200")]) == said


def test_a_cluster_that_has_yet_to_grow_has_to_be_told() -> None:
    model = large()
    with pytest.raises(ConfigError, match="no node with a card is there yet; say parallel=tp1"):
        settle(AUTO, model=model, shapes=shapes(model), device="cuda", nodes=[{"CPU": 8.0}])


def test_a_card_that_nobody_knows_and_a_card_that_is_too_small_are_named() -> None:
    model = large()
    with pytest.raises(ConfigError, match="the memory of Abacus is not known; say parallel=tp1"):
        settle(AUTO, model=model, shapes=shapes(model), device="cuda", nodes=[node("Abacus")])
    long = [clip_shape(model, resolution="1080P", ratio="1:1", duration_s=15)]
    assert settle(AUTO, model=model, shapes=long, device="cuda", nodes=[node("H200")]).tp in (1, 2, 4)
    with pytest.raises(ConfigError, match="no size fits magihuman_1080p on cards of 24 GB"):
        settle(AUTO, model=model, shapes=long, device="cuda", nodes=[node("L4")])


def test_weights_that_are_cut_decide(tmp_path: Path) -> None:
    model = noise_model()
    whole = write_weights(tmp_path / "whole", model)
    shard_weights(str(whole), str(tmp_path / "cut"), model=model, tp=2, storage=StorageSettings())
    assert settle_before(AUTO, LocalWeights(tmp_path / "cut"), model=model).tp == 2
    assert settle_before(AUTO, LocalWeights(whole), model=model).tp is None


def test_a_size_that_cannot_cut_the_model_is_refused_before_there_is_a_cluster(tmp_path: Path) -> None:
    model = noise_model()
    whole = write_weights(tmp_path, model)
    with pytest.raises(ConfigError, match=r"parallel.tp: .* sizes that work: 1, 2, 4"):
        settle_before(ParallelSettings(tp=8), LocalWeights(whole), model=model)


def test_cards_without_8_bit_floats_are_refused_before_any_is_taken() -> None:
    model = replace(large(), fp8=True)
    nodes = [{"CPU": 8.0, "accelerator_type:A10G": 1.0}, node("H100"), node("A100-40G")]
    for parallel in (AUTO, ParallelSettings(tp=4)):
        with pytest.raises(ConfigError, match="A100-40G cannot multiply 8-bit floats; cards that can: l4, l40s, h100"):
            settle(parallel, model=model, shapes=shapes(model), device="cuda", nodes=nodes)
    assert settle(AUTO, model=model, shapes=shapes(model), device="cuda", nodes=nodes[:2]).tp == 1
    assert settle(AUTO, model=model, shapes=shapes(model), device="cpu", nodes=nodes).tp == 1
