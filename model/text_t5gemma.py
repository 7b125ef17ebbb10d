"""T5Gemma's encoder through transformers, from `text_encoder/` below the weights root; its tokenizer also alone.

n tokens, C text channels.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.codecs.libraries import build_empty, build_from, fill, find_tensors
from model.codecs.parts import TEXT, read_json
from model.config import ModelConfig
from model.offloading import offload, text_limits
from model.placing import RESIDENT, Placing
from model.weights import TensorEntry, WeightReader, WeightsMismatch

TOKENIZER_FILES = (".json", ".model", ".txt", ".jinja")
NOT_READ = ("model.decoder.", "lm_head.")  # half of what the release stores, for writing text


class T5GemmaTextEncoder:
    """Each prompt is tokenised without padding and encoded whole; the first `most_tokens` states are kept."""

    def __init__(self, encoder: Any, tokenize: Callable[[str], list[int]], *, most_tokens: int, device: str) -> None:
        self._encoder, self._tokenize = encoder, tokenize
        self._most_tokens, self._device = most_tokens, device

    def count_tokens(self, prompt: str) -> int:
        return len(self._tokenize(prompt))

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        return [self._encode(prompt) for prompt in prompts]

    def _encode(self, prompt: str) -> Tensor:
        ids = torch.tensor([self._tokenize(prompt)], device=self._device)
        states = self._encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        rounded: Tensor = states.to(torch.float16).float()  # the release hands them on in half precision
        return rounded[: self._most_tokens].cpu()


def build_tokenizer(reader: WeightReader) -> Callable[[str], list[int]]:
    """Prompt -> ids, with whatever marks the tokenizer adds. Reads no weights. Raises WeightsMismatch."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="happyhorse-") as folder:  # transformers reads files, not a WeightReader
        for name in reader.names():
            part, _, file = name.rpartition("/")
            if part == TEXT and file.endswith(TOKENIZER_FILES) and not file.endswith(".index.json"):
                (Path(folder) / file).write_bytes(reader.read(name, 0, reader.size_bytes(name)))
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsMismatch(f"{TEXT}/ holds no tokenizer that transformers can read: {error}") from error

    def tokenize(prompt: str) -> list[int]:
        ids: list[int] = tokenizer(prompt)["input_ids"]
        return ids

    return tokenize


def load_t5gemma(
    model: ModelConfig,
    reader: WeightReader,
    *,
    device: str,
    placing: Placing = RESIDENT,
    cards: int = 0,
    folder: Path | None = None,
) -> T5GemmaTextEncoder:
    """The encoding half alone is read. Raises WeightsMismatch."""
    encoder, entries = _find_t5gemma(model, reader)
    fill(encoder, reader, entries, dtype=getattr(torch, model.compute_dtype), device="cpu")
    if placing.text == "cpu":
        encoder.to(device)
    else:
        no_split = list(encoder._no_split_modules)
        offload(encoder, limits=text_limits(placing, cards=cards), device=device, no_split=no_split, folder=folder)
    return T5GemmaTextEncoder(encoder, build_tokenizer(reader), most_tokens=model.text_max_tokens, device=device)


def check_t5gemma(model: ModelConfig, reader: WeightReader) -> None:
    """Whether `text_encoder/` can be loaded; reads headers and the tokenizer. Raises WeightsMismatch."""
    _find_t5gemma(model, reader)
    build_tokenizer(reader)


def _find_t5gemma(model: ModelConfig, reader: WeightReader) -> tuple[Any, dict[str, TensorEntry]]:
    from transformers import T5GemmaConfig, T5GemmaEncoderModel

    name = f"{TEXT}/config.json"
    values = {**read_json(reader, name), "is_encoder_decoder": False}
    config = build_from(name, lambda: T5GemmaConfig.from_dict(values))
    channels = config.encoder.hidden_size
    if channels != model.transformer.text_in_channels:
        raise WeightsMismatch(
            f"{TEXT}/config.json: hidden_size is {channels}, expected {model.transformer.text_in_channels}"
        )
    encoder = build_from(name, lambda: build_empty(lambda: T5GemmaEncoderModel(config)))
    return encoder, find_tensors(encoder, reader, part=TEXT, renamed=_own_name)


def _own_name(stored: str) -> str | None:
    return None if stored.startswith(NOT_READ) else stored.removeprefix("model.")
