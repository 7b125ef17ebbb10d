"""Weights cut once: every rank's file gives it exactly what it would have read, and nothing else passes for it."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.config import ModelConfig
from model.parallel import shard
from model.parts import check_weights, find_mismatches, parts_of
from model.transformer import Transformer
from model.weights import (
    LocalWeights,
    WeightReader,
    WeightsMismatch,
    load_transformer_weights,
    read_shards,
    weights_digest,
)
from pipeline.errors import ConfigError, WeightsError
from pipeline.store import StorageSettings, open_store
from pipeline.weights.cutting import shard_weights
from pipeline.weights.opening import open_weights
from tests.released import released_model
from tests.weights import noise_model, write_weights

MODEL = dataclasses.replace(  # three experts in every layer, so that there is padding between them
    noise_model(), transformer=dataclasses.replace(noise_model().transformer, mm_layers=(0, 1))
)
STORAGE = StorageSettings(weights_cache=None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "whole", MODEL)


def cut(root: Path, target: Path | str, *, tp: int, model: ModelConfig = MODEL) -> WeightReader:
    shard_weights(str(root), str(target), model=model, tp=tp, storage=STORAGE)
    return open_weights(str(target), STORAGE)


def load(reader: WeightReader, *, tp: int, rank: int) -> Transformer:
    with torch.device("meta"):
        model = Transformer(MODEL.transformer, dtype=torch.float32)
    shard(model, tp=tp, rank=rank, group=None)
    load_transformer_weights(model, reader, part="base", config=MODEL.transformer, tp=tp, rank=rank, device="cpu")
    return model


@pytest.mark.parametrize("tp", [2, 4])  # 168 inner channels: 96 and 72; 48, 48, 48 and 24
def test_a_rank_gets_from_its_file_what_it_got_from_the_whole(root: Path, tmp_path: Path, tp: int) -> None:
    target = cut(root, tmp_path / "cut", tp=tp)
    for rank in range(tp):
        before, after = load(LocalWeights(root), tp=tp, rank=rank), load(target, tp=tp, rank=rank)
        assert before.state_dict().keys() == after.state_dict().keys()
        for name, tensor in before.state_dict().items():
            assert torch.equal(tensor, after.state_dict()[name]), name
    files = {name for name in target.counts.requested if name.startswith("base/")}
    assert files == {f"base/rank{rank}-of-{tp}.safetensors" for rank in range(tp)}


def test_files_are_plain_safetensors_of_true_sizes(root: Path, tmp_path: Path) -> None:
    cut(root, tmp_path / "cut", tp=4)
    whole = load_file(root / "base" / "model.safetensors")
    shares = [load_file(tmp_path / "cut" / "base" / f"rank{rank}-of-4.safetensors") for rank in range(4)]
    name = "block.layers.1.mlp.up_gate_proj.weight"
    experts = [share[name].unflatten(0, (3, -1)) for share in shares]
    assert torch.equal(torch.cat(experts, dim=1).flatten(0, 1), whole[name])
    name = "block.layers.1.mlp.down_proj.weight"
    assert torch.equal(torch.cat([share[name] for share in shares], dim=1), whole[name])
    assert all(torch.equal(share["final_norm_video.weight"], whole["final_norm_video.weight"]) for share in shares)


def test_the_digest_is_that_of_the_whole_and_follows_what_was_copied(root: Path, tmp_path: Path) -> None:
    target = cut(root, tmp_path / "cut", tp=2)
    parts = parts_of(MODEL)
    assert weights_digest(target, parts) == weights_digest(LocalWeights(root), parts)
    state = load_file(root / "codec" / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in state.items()}, tmp_path / "cut" / "codec" / "model.safetensors")
    with pytest.raises(WeightsMismatch, match=r"codec/model\.safetensors: not the same as when the weights were cut"):
        weights_digest(target, parts)
    with pytest.raises(WeightsMismatch, match="cut for a model of base, codec, text, this one has base, text"):
        weights_digest(target, ["base", "text"])


def test_other_sizes_are_refused_with_those_that_work(root: Path, tmp_path: Path) -> None:
    target = cut(root, tmp_path / "cut", tp=4)
    check_weights(MODEL, target, tp=4)
    for tp in (1, 2):
        with pytest.raises(WeightsMismatch, match=f"cut for 4 ranks, this run has {tp}: expected parallel=tp4"):
            check_weights(MODEL, target, tp=tp)
    with pytest.raises(ConfigError, match="sizes that work: 1, 2, 4"):
        cut(root, tmp_path / "more", tp=8)
    with pytest.raises(ConfigError, match="expected 2 or more"):
        cut(root, tmp_path / "more", tp=1)
    assert not (tmp_path / "more").exists()


def test_a_file_in_anothers_place_is_noticed(root: Path, tmp_path: Path) -> None:
    target = cut(root, tmp_path / "cut", tp=2)
    first, second = (tmp_path / "cut" / "base" / f"rank{rank}-of-2.safetensors" for rank in range(2))
    shutil.copy(first, second)
    with pytest.raises(WeightsMismatch, match=r"rank1-of-2\.safetensors says that it is .*'rank': '0'.*expected"):
        check_weights(MODEL, target, tp=2)
    second.unlink()
    with pytest.raises(WeightsMismatch, match=r"rank1-of-2\.safetensors is not there"):
        check_weights(MODEL, target, tp=2)


def test_files_of_other_weights_are_noticed(root: Path, tmp_path: Path) -> None:
    target = cut(root, tmp_path / "cut", tp=2)
    path = root / "base" / "model.safetensors"
    save_file({name: tensor * 2 for name, tensor in load_file(path).items()}, path)
    cut(root, tmp_path / "other", tp=2)
    shutil.copy(tmp_path / "other" / "base" / "rank0-of-2.safetensors", tmp_path / "cut" / "base")
    with pytest.raises(WeightsMismatch, match=r"rank0-of-2\.safetensors says that it is .*source"):
        check_weights(MODEL, target, tp=2)


def test_what_is_not_finished_is_no_weights(root: Path, tmp_path: Path) -> None:
    cut(root, tmp_path / "cut", tp=2)
    (tmp_path / "cut" / "shards.json").unlink()
    with pytest.raises(WeightsMismatch, match=r"neither base/model\.safetensors nor"):
        check_weights(MODEL, LocalWeights(tmp_path / "cut"), tp=2)
    check_weights(MODEL, cut(root, tmp_path / "cut", tp=2), tp=2)  # the same command goes on
    (tmp_path / "cut" / "shards.json").write_text("{}")
    with pytest.raises(WeightsMismatch, match=r"shards\.json does not say how the weights are cut"):
        check_weights(MODEL, LocalWeights(tmp_path / "cut"), tp=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"copied": None}, "copied is None, expected dict"),
        ({"copied": {"text/model.safetensors": 1}}, "copied has 1, expected str"),
        ({"parts": [1, 2]}, "parts has 1, expected str"),
        ({"cut": "base"}, "cut is 'base', expected list"),
        ({"tp": "2"}, "tp is '2', expected int"),
        ({"tp": True}, "tp is True, expected int"),
        ({"tp": 0}, "tp is 0, expected at least 1"),
        ({"digest": 7}, "digest is 7, expected str"),
        ({"more": 7}, "it has copied, cut, digest, more"),
    ],
)
def test_shards_json_of_other_types_is_refused(
    root: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    target, path = cut(root, tmp_path / "cut", tp=2), tmp_path / "cut" / "shards.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WeightsMismatch, match=message):
        read_shards(target)
    path.write_text("[" * 200_000)
    with pytest.raises(WeightsMismatch, match="does not say how the weights are cut"):
        read_shards(target)


def test_a_target_with_other_files_and_a_source_that_is_cut_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds 1 other files, base/model\.safetensors among them"):
        cut(root, root, tp=2)
    cut(root, tmp_path / "cut", tp=2)
    with pytest.raises(WeightsError, match="they are cut already"):
        cut(tmp_path / "cut", tmp_path / "again", tp=4)
    with pytest.raises(ConfigError, match=r"holds 3 other files, base/rank0-of-2\.safetensors"):
        cut(root, tmp_path / "cut", tp=4)


def test_a_target_inside_its_source_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    for inside in (root / "cut", root / "base" / "cut", tmp_path / "link" / "cut"):
        with pytest.raises(ConfigError, match=r"lies inside .*, expected a folder outside"):
            cut(root, inside, tp=2)
        assert not inside.exists()
    cut(root, root.with_name("whole-cut"), tp=2)


def test_weights_that_do_not_fit_are_not_cut(root: Path, tmp_path: Path) -> None:
    wide = dataclasses.replace(MODEL, transformer=dataclasses.replace(MODEL.transformer, hidden_size=128))
    with pytest.raises(WeightsError, match=r"is \[.*\], expected"):
        cut(root, tmp_path / "cut", tp=2, model=wide)
    assert not (tmp_path / "cut").exists()


@pytest.mark.s3
def test_from_storage_to_storage(root: Path, swift_s3: str, tmp_path: Path) -> None:
    store = open_store(f"{swift_s3}/whole")
    for path in root.rglob("*.safetensors"):
        store.put_file(path.relative_to(root).as_posix(), path)
    shard_weights(store.uri, f"{swift_s3}/cut", model=MODEL, tp=2, storage=STORAGE)
    target = open_weights(f"{swift_s3}/cut", STORAGE)
    assert torch.equal(
        load(target, tp=2, rank=1).final_linear_video.weight,
        load(LocalWeights(root), tp=2, rank=1).final_linear_video.weight,
    )
    assert weights_digest(target, parts_of(MODEL)) == weights_digest(LocalWeights(root), parts_of(MODEL))


def test_metadata_says_what_a_file_is(root: Path, tmp_path: Path) -> None:
    reader = cut(root, tmp_path / "cut", tp=2)
    with safe_open(tmp_path / "cut" / "base" / "rank1-of-2.safetensors", "pt") as file:
        metadata = file.metadata()
    digest = weights_digest(reader, parts_of(MODEL))
    assert metadata == {"part": "base", "tp": "2", "rank": "1", "source": digest}


def test_what_is_wrong_with_all_stages_alike_is_said_once(released_weights: Path, tmp_path: Path) -> None:
    model = released_model("magihuman_1080p", first_stage="distilled")
    target = cut(released_weights, tmp_path / "cut", tp=2, model=model)
    with pytest.raises(WeightsMismatch) as caught:
        check_weights(model, target, tp=1)
    assert str(caught.value).count("the files are cut for 2 ranks") == len(caught.value.findings) == 1


def test_a_stage_twice_in_cut_weights_is_refused(released_weights: Path, tmp_path: Path) -> None:
    model = released_model("magihuman_1080p", first_stage="distilled")
    whole = Path(shutil.copytree(released_weights, tmp_path / "whole"))
    shutil.rmtree(whole / "distill")
    shutil.copytree(whole / "1080p_sr", whole / "distill")
    with pytest.raises(WeightsError, match="distill and 1080p_sr hold the same weights"):
        cut(whole, tmp_path / "refused", tp=2, model=model)
    assert not (tmp_path / "refused").exists()
    target = cut(released_weights, tmp_path / "cut", tp=2, model=model)
    check_weights(model, target, tp=2)
    for rank in range(2):
        path = tmp_path / "cut" / "distill" / f"rank{rank}-of-2.safetensors"
        shutil.copy(tmp_path / "cut" / "1080p_sr" / path.name, path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() | {"part": "distill"}
        save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(WeightsMismatch, match=r"^distill and 1080p_sr hold the same weights"):
        check_weights(model, target, tp=2)


def test_both_stages_are_cut_and_all_that_stands_around_them_is_copied(released_weights: Path, tmp_path: Path) -> None:
    model = released_model("magihuman_1080p", first_stage="distilled")
    target = cut(released_weights, tmp_path / "cut", tp=2, model=model)
    assert not [error for error in find_mismatches(model, target, tp=2).values() if error]
    assert weights_digest(target, parts_of(model)) == weights_digest(LocalWeights(released_weights), parts_of(model))
    files = {name for name in LocalWeights(released_weights).names() if not name.startswith(("base/", "540p_sr/"))}
    ranks = {f"{part}/rank{rank}-of-2.safetensors" for part in ("distill", "1080p_sr") for rank in range(2)}
    copied = {name for name in files if not name.startswith(("distill/", "1080p_sr/"))}
    assert set(target.names()) == ranks | copied | {"shards.json"}
