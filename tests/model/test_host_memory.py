"""The machine's memory that a rank's weights take, as `plan` says it, against the process's own."""

import ctypes
import dataclasses
import gc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.config import ModelConfig, SuperResolutionConfig, SuperResolutionStage
from model.memory import PROCESS_BYTES, card_memory, host_beside, host_memory, surroundings
from model.placing import GB, Placing
from model.renderer import Renderer
from model.transformer import Transformer
from model.weights import LocalWeights
from pipeline.requests import smallest_shape
from tests.configured import load_model
from tests.models import small_model

MB = 1_000_000
STATUS = Path("/proc/self/status")


@pytest.fixture(scope="module")
def model() -> ModelConfig:
    """Two stages of 100 MB: more than a process's memory moves by itself."""
    small = small_model()
    shape = dataclasses.replace(small.transformer, hidden_size=704, head_dim=176, num_layers=6, mm_layers=(0,))
    stage = SuperResolutionStage(part="sr", transformer=shape, sampling=SuperResolutionConfig())
    return dataclasses.replace(small, transformer=shape, super_resolution=stage, compute_dtype="bfloat16")


@pytest.fixture(scope="module")
def weights(model: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    for part, shape in model.transformers.items():
        with torch.device("meta"):
            state = Transformer(shape, dtype=torch.bfloat16).state_dict()
        (root / part).mkdir()
        zeros = {name: torch.zeros(each.shape, dtype=each.dtype) for name, each in state.items()}
        save_file(zeros, root / part / "model.safetensors")
    return root


def memory_of_process(line: str) -> int:
    return next(1024 * int(each.split()[1]) for each in STATUS.read_text().splitlines() if each.startswith(line))


def given_back(line: str) -> int:
    """Without what the allocator keeps of what is gone."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return memory_of_process(line)


@pytest.mark.skipif(not STATUS.exists(), reason="there is no /proc")
@pytest.mark.parametrize("placing", [Placing(stages="swapped"), Placing(stages="offloaded"), Placing(stages="disk")])
def test_a_rank_takes_what_is_said(weights: Path, model: ModelConfig, placing: Placing, tmp_path: Path) -> None:
    import accelerate  # noqa: F401  # not part of what is measured

    anonymous, before = given_back("RssAnon"), given_back("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    renderer = Renderer.load(model, LocalWeights(weights), device="cpu", placing=placing, folder=tmp_path)
    most, held = memory_of_process("VmHWM") - before, given_back("RssAnon") - anonymous
    stages = [sum(each.numel() * each.element_size() for each in stage.parameters()) for stage in renderer.stages]
    said = host_memory(model, tp=1, placing=placing) - PROCESS_BYTES
    if placing.stages == "swapped":  # pinned where there is a card: at most to twice their bytes
        assert sum(stages) <= said < 2 * sum(stages)
        said = sum(card_memory(model, tp=1, shapes=[smallest_shape(model)], placing=placing).weights.values())
    assert said > 90 * MB
    assert 0.95 * said < most < 1.5 * said, (most, said)
    assert (held < 0.3 * said) == (placing.stages == "disk"), (held, said)


def test_what_stays_on_cards_takes_nothing_of_the_machine() -> None:
    model = load_model("magihuman_1080p")
    kept = [host_memory(model, tp=1, placing=Placing(stages="offloaded", stages_gb=gb)) for gb in (0, 20, 80)]
    assert kept[0] - kept[1] == 20 * GB
    assert kept[2] == host_memory(model, tp=1, placing=Placing()) == PROCESS_BYTES
    beside = surroundings(model, shapes=[smallest_shape(model)], has_images=False)
    cpu, cards = (host_beside(beside, placing) for placing in (Placing(), Placing(text="cards", decode="card")))
    assert cpu["finisher"] - cards["finisher"] == beside.decoders.total
    assert cards["encoder"] - PROCESS_BYTES == beside.text.weights, "it goes through the machine's memory to its card"
