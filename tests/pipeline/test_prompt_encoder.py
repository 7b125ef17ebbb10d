"""The prompt encoder's own process, without Ray: what wrong weights and too small cards are to it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from model.placing import Placing
from model.text import FoalTextEncoder
from pipeline.errors import GroupLost, WeightsError
from pipeline.fleet import OUT_OF_MEMORY, Text
from pipeline.prompt_encoder import PromptEncoder
from pipeline.store import StorageSettings
from pipeline.types import ClipFailure
from pipeline.worker import Workplace
from tests.clips import MEDIA
from tests.weights import noise_model, write_weights

LONGEST = 5  # tokens that the card holds, begin and end included


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "weights", noise_model())


def encoder(weights: Path, *, keep_embeddings: bool = False) -> PromptEncoder:
    return PromptEncoder(
        Workplace(
            model=noise_model(),
            weights=str(weights),
            output=str(weights.parent / "out"),
            storage=StorageSettings(),
            media=MEDIA,
            threads=1,
            device="cpu",
            placing=Placing(text="cards"),
            keep_embeddings=keep_embeddings,
        )
    )


def encoded(encoder: PromptEncoder, *prompts: str) -> Any:
    return encoder.encode(tuple(Text(prompt=prompt) for prompt in prompts))[0]


def test_wrong_weights_stop_the_run_also_where_they_are_read_with_the_first_prompt(weights: Path) -> None:
    (weights / "text" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(WeightsError, match="text/model"):
        encoder(weights).start()
    lazy = encoder(weights, keep_embeddings=True)
    lazy.start()
    failure = encoded(lazy, "a red ball")
    assert isinstance(failure, ClipFailure)
    assert (failure.kind, failure.retriable) == ("WeightsError", False)
    assert failure.message.startswith(f"weights {weights}: ")


@pytest.mark.parametrize("keep_embeddings", [False, True])
def test_a_prompt_that_its_cards_do_not_hold_fails_with_what_it_needs_and_the_encoder_lives(
    weights: Path, keep_embeddings: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = FoalTextEncoder.embed

    def limited(self: FoalTextEncoder, ids: torch.Tensor) -> torch.Tensor:
        if len(ids) > LONGEST:
            raise torch.OutOfMemoryError("CUDA out of memory (made by a test)")
        return embed(self, ids)

    monkeypatch.setattr(FoalTextEncoder, "embed", limited)
    alive = encoder(weights, keep_embeddings=keep_embeddings)
    alive.start()
    failure = encoded(alive, "a ball", "a red ball moves left a red ball")
    assert isinstance(failure, ClipFailure)
    assert (failure.kind, failure.retriable) == (OUT_OF_MEMORY, False)
    assert "placing.text=cards: with all weights on cards it needs 1.5 GB on 1 by" in failure.message
    assert "placing.text=offloaded brings" in failure.message
    assert "CUDA out of memory" in failure.message
    assert isinstance(encoded(alive, "a ball"), float)


@pytest.mark.parametrize("keep_embeddings", [False, True])
def test_weights_that_its_cards_do_not_hold_cost_the_encoder(
    weights: Path, keep_embeddings: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory (made by a test)")

    monkeypatch.setattr("model.text.load_module", full)
    lost = encoder(weights, keep_embeddings=keep_embeddings)
    expected = pytest.raises(GroupLost, match=r"loading: out of memory in the prompt encoder.*it needs 1\.5 GB")
    if not keep_embeddings:
        with expected:
            lost.start()
        return
    lost.start()
    with expected:
        encoded(lost, "a ball")
