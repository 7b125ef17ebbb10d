"""Files of torch.save: tensors come out, code never runs."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from model.weights import LocalWeights, WeightsMismatch, read_checkpoint
from pipeline.store import StorageSettings, open_store
from pipeline.weights.opening import open_weights

NAME = "turbo_vae/model.ckpt"


class Code:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "turbo_vae").mkdir()
    return tmp_path / NAME


def read(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(LocalWeights(path.parent.parent), NAME)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_averaged_weights_are_preferred_and_lose_their_wrapper(path: Path, prefix: str) -> None:
    state = {f"{prefix}decoder.a": torch.arange(3.0), f"{prefix}decoder.b": torch.ones(2, dtype=torch.bfloat16)}
    torch.save({"state_dict": {"decoder.a": torch.zeros(3)}, "step": 7, "ema_state_dict": state}, path)
    found = read(path)
    assert list(found) == ["decoder.a", "decoder.b"]
    assert torch.equal(found["decoder.a"], torch.arange(3.0))
    torch.save(state, path)
    assert read(path).keys() == found.keys()


@pytest.mark.parametrize("place", ["among the weights", "beside them", "in a plain pickle"])
def test_code_in_a_file_is_refused_and_does_not_run(path: Path, tmp_path: Path, place: str) -> None:
    mark = tmp_path / "it ran"
    evil = Code(mark)
    content: dict[str, Any] = {"ema_state_dict": {"decoder.a": torch.zeros(3)}, "note": evil}
    if place == "among the weights":
        content = {"ema_state_dict": {"decoder.a": evil}}
    if place == "in a plain pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    expected = "not a file that torch.save wrote" if place == "in a plain pickle" else "nothing in it was run.*mkdir"
    with pytest.raises(WeightsMismatch, match=rf"^turbo_vae/model\.ckpt is .*{expected}"):
        read(path)
    assert not mark.exists()
    torch.save(content, path)
    torch.load(path, weights_only=False)
    assert mark.exists(), "the file does hold code"


def test_what_is_cut_short_or_no_table_of_tensors_is_refused(path: Path) -> None:
    torch.save({"decoder.a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(WeightsMismatch, match="is truncated, or not a file that"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(WeightsMismatch, match="is truncated"):
        read(path)
    for content in (torch.zeros(3), [torch.zeros(3)], {"ema_state_dict": 7}, {"decoder.a": "text"}):
        torch.save(content, path)
        with pytest.raises(WeightsMismatch, match="holds no table of tensors"):
            read(path)


@pytest.mark.filterwarnings("ignore")  # torch's, of odd pickles
def test_every_damage_is_a_mismatch(path: Path) -> None:
    """Bytes flipped all over the file: refused in our words, or read."""
    torch.save({"decoder.a": torch.zeros(10), "decoder.b": torch.ones(3)}, path)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            read(path)
        except WeightsMismatch:
            continue


@pytest.mark.s3
def test_one_in_object_storage_is_read_too(moto_s3: str, path: Path, tmp_path: Path) -> None:
    torch.save({"ema_state_dict": {"module.decoder.a": torch.arange(1e6)}}, path)
    store = open_store(f"{moto_s3}/weights")
    store.put_file(NAME, path)
    settings = StorageSettings(weights_cache=str(tmp_path / "cache"))
    for fetched in (path.stat().st_size, 0):
        reader = open_weights(store.uri, settings)
        assert torch.equal(read_checkpoint(reader, NAME)["decoder.a"], torch.arange(1e6))
        assert reader.counts.fetched.total() == fetched
