"""Prompts to embeddings. The foal's encoder: a small learnt vocabulary, each word seen with its two neighbours.

n tokens, C text channels. It imports torch alone; the released model's encoder is in `model/text_t5gemma.py`.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from model.codecs.interfaces import TextEncoder
from model.config import ModelConfig
from model.placing import RESIDENT, Placing
from model.weights import WeightReader, WeightsMismatch, load_module, read_index

SPARE_TOKENS = 2  # a text has at most as many tokens as UTF-8 bytes, and these: its begin and its end
BEGIN, END, UNKNOWN = "<begin>", "<end>", "<unknown>"
_WORD = re.compile(r"[a-z]+|\d+|[^\W\d_a-z]|[^\w\s]")
_SILENT = frozenset(",.;:!?'\"-()")  # punctuation that carries nothing for the foal


class FoalTextEncoder(nn.Module):
    """Words of the vocabulary keep their place; a run of unknown ones becomes a single token."""

    def __init__(self, vocabulary: Sequence[str], *, channels: int) -> None:
        super().__init__()
        if channels % 3:
            raise ValueError(f"text channels {channels} are not a multiple of 3 (a word and its two neighbours)")
        self.words = {word: n for n, word in enumerate([BEGIN, END, UNKNOWN, *vocabulary])}
        self.embedding = nn.Embedding(len(self.words), channels // 3)

    def tokenize(self, prompt: str) -> list[int]:
        """Token ids, begin and end included, so n is at least 2."""
        unknown = self.words[UNKNOWN]
        ids = [self.words[BEGIN]]
        for word in _WORD.findall(prompt.lower()):
            if word in _SILENT:
                continue
            token = self.words.get(word, unknown)
            if token != unknown or ids[-1] != unknown:
                ids.append(token)
        return [*ids, self.words[END]]

    def count_tokens(self, prompt: str) -> int:
        return len(self.tokenize(prompt))

    def embed(self, ids: Tensor) -> Tensor:
        """[..., n] ids -> [..., n, C]: (previous word, word, next word); the ends repeat."""
        states = self.embedding(ids)
        previous = torch.cat([states[..., :1, :], states[..., :-1, :]], dim=-2)
        following = torch.cat([states[..., 1:, :], states[..., -1:, :]], dim=-2)
        return torch.cat([previous, states, following], dim=-1)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        return [self.embed(torch.tensor(self.tokenize(prompt))) for prompt in prompts]


def build_text_encoder(
    model: ModelConfig,
    reader: WeightReader,
    *,
    device: str = "cpu",
    placing: Placing = RESIDENT,
    cards: int = 0,
    folder: Path | None = None,
) -> TextEncoder:
    """The model's encoder with its weights; the foal's are in `text/` below the weights root.

    A large one lies as `placing.text` says, on so many `cards` that this process sees; `folder` is for what is on disk.
    """
    if model.codecs.text == "t5gemma":
        from model.text_t5gemma import load_t5gemma

        return load_t5gemma(model, reader, device=device, placing=placing, cards=cards, folder=folder)
    metadata = read_index(reader, "text").metadata
    if "vocabulary" not in metadata:
        raise WeightsMismatch("text/model.safetensors has no vocabulary in its metadata")
    encoder = FoalTextEncoder(json.loads(metadata["vocabulary"]), channels=model.transformer.text_in_channels)
    load_module(encoder, reader, part="text")
    return encoder


def build_token_counter(model: ModelConfig, reader: WeightReader) -> Callable[[str], int]:
    """Prompt -> tokens, as the model's encoder counts them, without the weights of a large one."""
    if model.codecs.text == "t5gemma":
        from model.text_t5gemma import build_tokenizer

        tokenize = build_tokenizer(reader)
        return lambda prompt: len(tokenize(prompt))
    return build_text_encoder(model, reader).count_tokens
