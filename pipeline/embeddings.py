"""Embeddings that an output keeps for its next run: `embeddings/<digest>.safetensors`, one for each prompt.

The digest is of the prompt and of all that decides its embedding: the encoder's weights, where it is cut, the device,
the libraries' versions. What is damaged, or somebody else's, is made again. Best effort: what cannot be kept is made.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import version

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.codecs.interfaces import TextEncoder
from model.codecs.parts import TEXT
from model.config import ModelConfig
from model.weights import WeightReader, deciding_files, file_digest
from pipeline.errors import StoreError
from pipeline.store import Store

EMBEDDINGS = "embeddings"
STATES = "states"
MOST_BYTES = 64 << 20  # of a file; 640 tokens of 3,584 channels take 9 MB
log = logging.getLogger(__name__)


def origin_of(model: ModelConfig, reader: WeightReader, *, device: str) -> str:
    """A digest of all but the prompt that decides an embedding."""
    foal = model.codecs.text == "foal"
    packages = ["torch"] if foal else ["torch", "transformers"]
    decides = {
        "weights": {name: file_digest(reader, name) for name in deciding_files(reader, ["text" if foal else TEXT])},
        "encoder": model.codecs.text,
        "dtype": model.compute_dtype,
        "most_tokens": model.text_max_tokens,
        "device": device,
        "versions": {name: version(name) for name in packages},
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class KeptTexts:
    """Embeds prompts that are not kept yet, and keeps them. The encoder is built when one is needed."""

    def __init__(self, store: Store, *, origin: str, channels: int, build: Callable[[], TextEncoder]) -> None:
        self._store, self._origin, self._channels, self._build = store, origin, channels, build

    @cached_property
    def _encoder(self) -> TextEncoder:
        return self._build()

    def embed(self, prompt: str) -> Tensor:
        digest = hashlib.sha256(f"{self._origin} {prompt}".encode()).hexdigest()
        key = f"{EMBEDDINGS}/{digest}.safetensors"
        kept = self._read(key, digest)
        if kept is not None:
            return kept
        (states,) = self._encoder.encode([prompt])
        try:
            self._store.put(key, _packed(states, digest))
        except StoreError as error:
            log.warning("an embedding is not kept: %s", error)
        return states

    def _read(self, key: str, digest: str) -> Tensor | None:
        try:
            part = self._store.get_part(key, 0, MOST_BYTES)
            return None if part is None else _unpacked(part.data, digest, channels=self._channels)
        except (StoreError, ValueError) as error:
            log.warning("a kept embedding is made again: %s: %s", self._store.where(key), error)
            return None


def _packed(states: Tensor, digest: str) -> bytes:
    states = states.contiguous()
    return save({STATES: states}, metadata={"of": digest, "sha256": _sha256(states)})


def _unpacked(data: bytes, digest: str, *, channels: int) -> Tensor:
    """ValueError unless it is, whole, what `_packed` made for this digest."""
    try:
        states = load(data)[STATES]
        size = int.from_bytes(data[:8], "little")
        said = json.loads(data[8 : 8 + size])["__metadata__"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"it holds no embedding ({error})") from error
    if said != {"of": digest, "sha256": _sha256(states)}:
        raise ValueError("its content is not what its maker said, or another prompt's")
    if states.dtype != torch.float32 or states.dim() != 2 or states.shape[1] != channels:
        raise ValueError(f"{states.dtype} {list(states.shape)}, expected float32 [n, {channels}]")
    return states


def _sha256(states: Tensor) -> str:
    return hashlib.sha256(states.contiguous().numpy().tobytes()).hexdigest()
