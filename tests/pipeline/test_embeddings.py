"""What an output keeps of its prompts: read again bit for bit, made again where it is damaged or somebody else's."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from model.weights import LocalWeights
from pipeline.embeddings import EMBEDDINGS, KeptTexts, origin_of
from pipeline.store import open_store
from tests.weights import noise_model, write_weights

CHANNELS = 6


class Counted:
    """An encoder of noise that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def count_tokens(self, prompt: str) -> int:
        return len(prompt)

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        self.asked += prompts
        return [torch.randn(len(prompt), CHANNELS) for prompt in prompts]


def kept(folder: Path, encoder: Counted, *, origin: str = "these weights") -> KeptTexts:
    return KeptTexts(open_store(str(folder)), origin=origin, channels=CHANNELS, build=lambda: encoder)


def files(folder: Path) -> list[Path]:
    return sorted((folder / EMBEDDINGS).iterdir())


def test_the_next_run_reads_what_this_one_made_and_needs_no_encoder(tmp_path: Path) -> None:
    made = kept(tmp_path, Counted()).embed("a red ball")
    again = KeptTexts(open_store(str(tmp_path)), origin="these weights", channels=CHANNELS, build=pytest.fail)
    assert torch.equal(again.embed("a red ball"), made)
    assert len(files(tmp_path)) == 1


def test_other_prompts_and_other_weights_have_embeddings_of_their_own(tmp_path: Path) -> None:
    encoder = Counted()
    kept(tmp_path, encoder).embed("a red ball")
    kept(tmp_path, encoder).embed("a red bell")
    kept(tmp_path, encoder, origin="others").embed("a red ball")
    assert encoder.asked == ["a red ball", "a red bell", "a red ball"]
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "text", "foreign", "another's"])
def test_what_is_damaged_or_foreign_is_made_again(tmp_path: Path, damage: str) -> None:
    encoder = Counted()
    kept(tmp_path, encoder).embed("a red ball")
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    kept(tmp_path, Counted()).embed("a red bell")
    (other,) = set(files(tmp_path)) - {path}
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    damaged = {
        "flipped": bytes(flipped),
        "cut": whole[:-5],
        "empty": b"",
        "text": b"not tensors",
        "foreign": save({"weight": torch.zeros(3, CHANNELS)}),
        "another's": other.read_bytes(),
    }
    path.write_bytes(damaged[damage])
    made = kept(tmp_path, encoder).embed("a red ball")
    assert encoder.asked == ["a red ball"] * 2
    assert torch.equal(kept(tmp_path, encoder).embed("a red ball"), made)
    assert encoder.asked == ["a red ball"] * 2, "it is whole again"


def test_storage_that_says_no_costs_no_embedding(tmp_path: Path) -> None:
    (tmp_path / EMBEDDINGS).write_text("a file where a folder is needed")
    encoder = Counted()
    assert kept(tmp_path, encoder).embed("a red ball").shape == (10, CHANNELS)


def test_whatever_decides_an_embedding_is_part_of_its_name(tmp_path: Path) -> None:
    model = noise_model()
    reader = LocalWeights(write_weights(tmp_path / "one", model))
    others = [dataclasses.replace(model, text_max_tokens=5), dataclasses.replace(model, compute_dtype="bfloat16")]
    origins = {origin_of(each, reader, device="cpu") for each in (model, *others)}
    origins.add(origin_of(model, reader, device="cuda"))
    (path,) = (tmp_path / "one" / "text").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    origins.add(origin_of(model, LocalWeights(tmp_path / "one"), device="cpu"))
    assert len(origins) == 5
