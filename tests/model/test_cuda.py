"""On a GPU: the recorded numbers, compiled layers, 8-bit linear maps and the fused window. Skipped without one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from model.attention import local_attention_by_frame, local_attention_fused
from model.compiling import compile_layers
from model.fp8 import CAPABILITY
from model.fp8_layers import prepare_fp8
from model.recordings import LIMITS, transformer_config
from model.transformer import Transformer
from model.weights import LocalWeights, load_transformer_weights
from tests.bench.rounding import recorded

GOLDEN = str(Path(__file__).parents[1] / "golden")
DEVICE = "cuda"
NAMES = ("dit_base_v2", "dit_local_v1", "dit_wide_v2")
FP8 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= CAPABILITY
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: nothing is computed on one"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def loaded(name: str, *, dtype: torch.dtype, fp8: bool = False) -> Transformer:
    notes = recorded(GOLDEN, f"{name}_fp32").notes
    config = transformer_config(
        notes["config"], coords_style=notes["coords_style"], radius=notes["frame_receptive_field"]
    )
    with torch.device("meta"):
        transformer = Transformer(config, dtype=dtype)
    if fp8:
        prepare_fp8(transformer)
    load_transformer_weights(
        transformer, LocalWeights(GOLDEN), part=f"{name}_weights", config=config, tp=1, rank=0, device=DEVICE
    )
    return transformer.eval().requires_grad_(False)


@torch.inference_mode()
def errors(transformer: Transformer, name: str, compute: str) -> list[float]:
    """Relative L2 of video and audio against what was recorded on a CPU."""
    recording = recorded(GOLDEN, f"{name}_{compute}")
    video, audio, text = (recording.tensors[f"in.{each}"].to(DEVICE) for each in ("video", "audio", "text"))
    got = transformer(video, audio, text[:, : recording.notes["text_len"]])
    kinds = zip(("out.video", "out.audio"), got, strict=True)
    return [far(out.cpu(), recording.tensors[kind].reshape(out.shape)) for kind, out in kinds]


def far(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(("compute", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_cuda_meets_the_recorded_numbers(name: str, is_compiled: bool, compute: str, dtype: torch.dtype) -> None:
    transformer = loaded(name, dtype=dtype)
    if is_compiled:
        compile_layers(transformer)
    limit = LIMITS["float32" if compute == "fp32" else "bfloat16"]
    assert max(errors(transformer, name, compute)) <= limit


@pytest.mark.skipif(not FP8, reason="no GPU here that multiplies 8-bit floats")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "compiled"])
def test_cuda_8_bit_maps_move_velocities_by_a_few_percent(name: str, is_compiled: bool) -> None:
    transformer = loaded(name, dtype=torch.bfloat16, fp8=True)
    if is_compiled:
        compile_layers(transformer)
    assert all(0.03 < error < 0.08 for error in errors(transformer, name, "fp32"))


@torch.inference_mode()
def test_cuda_compiles_the_window_once_for_clips_of_every_size() -> None:
    counts = []
    generator = torch.Generator(DEVICE).manual_seed(0)
    for frames, per_frame, others, radius in ((7, 24, 35, 2), (16, 60, 151, 3), (9, 100, 50, 1), (12, 64, 300, 4)):
        tokens = frames * per_frame + others
        q, k, v = (torch.randn(1, heads, tokens, 32, device=DEVICE, generator=generator) for heads in (8, 4, 4))
        sizes = {"num_frames": frames, "tokens_per_frame": per_frame, "radius": radius}
        got, expected = local_attention_fused(q, k, v, **sizes), local_attention_by_frame(q, k, v, **sizes)
        torch.testing.assert_close(got, expected, rtol=2e-3, atol=2e-3)
        counts.append(counters["stats"]["unique_graphs"])
    assert counts[0] == counts[-1]
