"""What tests of the foal's training share. Its codec is fitted in closed form, which takes seconds: once for all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.foal.codec_training import CodecTask
from tests.model.foal.recipes import RECIPES


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in the same order every time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def codec_task(tmp_path_factory: pytest.TempPathFactory) -> CodecTask:
    """Not trained; whoever trains takes a deep copy."""
    return CodecTask(RECIPES["codec"], weights=tmp_path_factory.mktemp("codec"), device="cpu")


@pytest.fixture(scope="session")
def codec_weights(codec_task: CodecTask) -> Path:
    """A weights root with the codec as it is before any training."""
    codec_task.export(codec_task.model)
    return codec_task.weights
