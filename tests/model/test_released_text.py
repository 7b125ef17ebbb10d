"""T5Gemma's states against those of transformers' own model, and its tokenizer without the model."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.config import ModelConfig
from model.text import SPARE_TOKENS, build_text_encoder, build_token_counter
from model.weights import LocalWeights, WeightReader, WeightsMismatch
from tests.released import SENTENCES, released_model

PROMPTS = (*SENTENCES, "in at is ll", "a")


def model_of(*words: str) -> ModelConfig:
    return released_model("magihuman_distill", first_stage="distilled", words=words)


def states_of_transformers(folder: Path, prompt: str, *, dtype: torch.dtype) -> Tensor:
    """As the release asks for them."""
    from transformers import AutoTokenizer, T5GemmaEncoderModel

    model = T5GemmaEncoderModel.from_pretrained(folder / "text_encoder", is_encoder_decoder=False, dtype=dtype)
    inputs = AutoTokenizer.from_pretrained(folder / "text_encoder")(prompt, return_tensors="pt")
    with torch.inference_mode():
        states: Tensor = model.eval()(**inputs).last_hidden_state[0]
    return states.half().float()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_states_are_those_of_transformers(released_weights: Path, dtype: str) -> None:
    model = model_of(f"model.compute_dtype={dtype}")
    states = build_text_encoder(model, LocalWeights(released_weights)).encode(PROMPTS)
    for prompt, got in zip(PROMPTS, states, strict=True):
        wanted = states_of_transformers(released_weights, prompt, dtype=getattr(torch, dtype))
        assert got.dtype == torch.float32
        assert torch.equal(got, wanted)
        assert got.std() > 0.1


def test_tokens_are_counted_without_the_weights(released_weights: Path) -> None:
    reader = LocalWeights(released_weights)
    count = build_token_counter(model_of(), reader)
    encoder = build_text_encoder(model_of(), LocalWeights(released_weights))
    for prompt, states in zip(PROMPTS, encoder.encode(PROMPTS), strict=True):
        assert count(prompt) == encoder.count_tokens(prompt) == len(states) > 1
        assert count(prompt) <= len(prompt.encode()) + SPARE_TOKENS
    assert not [name for name in reader.counts.requested if name.endswith(".safetensors")]


def test_the_decoder_is_not_read(released_weights: Path) -> None:
    """Half of the file, in the release: nine of eighteen billion numbers."""
    reader = LocalWeights(released_weights)
    build_text_encoder(model_of(), reader)
    file = released_weights / "text_encoder" / "model.safetensors"
    assert reader.counts.requested["text_encoder/model.safetensors"] < 0.75 * file.stat().st_size


def test_a_prompt_is_encoded_whole_and_its_first_states_are_kept(released_weights: Path) -> None:
    reader = LocalWeights(released_weights)
    (whole,) = build_text_encoder(model_of(), reader).encode([SENTENCES[0]])
    (cut,) = build_text_encoder(model_of("model.text_max_tokens=5"), reader).encode([SENTENCES[0]])
    assert torch.equal(cut, whole[:5])
    assert len(whole) > 5


def test_another_text_encoder_is_refused(released_weights: Path) -> None:
    other = dataclasses.replace(model_of().transformer, text_in_channels=32)
    model = dataclasses.replace(model_of(), transformer=other)
    with pytest.raises(WeightsMismatch, match=r"text_encoder/config\.json: hidden_size is 24, expected 32"):
        build_text_encoder(model, LocalWeights(released_weights))


def test_what_is_saved_without_its_decoder_is_read_too(released_weights: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, T5GemmaEncoderModel

    source, target = released_weights / "text_encoder", tmp_path / "text_encoder"
    T5GemmaEncoderModel.from_pretrained(source, is_encoder_decoder=False).save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)
    readers: list[WeightReader] = [LocalWeights(released_weights), LocalWeights(tmp_path)]
    both, alone = (build_text_encoder(model_of(), reader).encode(PROMPTS) for reader in readers)
    assert all(torch.equal(a, b) for a, b in zip(both, alone, strict=True))
