"""Inside a step the CPU never waits for the GPU: nothing is read back, and nothing small is made here and copied."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.config import SamplingConfig, TransformerConfig
from model.sampling.base import sample_base
from model.sampling.prediction import velocity_of
from model.transformer import Transformer, _coordinates_on
from tests.models import TRANSFORMER

LOCAL = dataclasses.replace(TRANSFORMER, coords_style="v1", local_attn_layers=(1, 2), frame_receptive_field=1)
PLACED = dataclasses.replace(TRANSFORMER, place_frequencies=2, prediction="clean")
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: its waiting is not watched")


class Crossings(TorchDispatchMode):
    """Counts operations that take tensors of two devices, and those that read a number off another device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)}
        if len(devices) > 1 or (func is torch.ops.aten._local_scalar_dense.default and devices != {"cpu"}):
            self.names.append(str(func))
        return out


def random_transformer(config: TransformerConfig, *, device: str) -> Transformer:
    return Transformer(config, dtype=torch.bfloat16).to(device).requires_grad_(False)


def denoise(transformer: Transformer, *, steps: int) -> None:
    device = transformer.adapter.rope.bands.device
    video, audio, text, negative = (
        torch.zeros(shape, device=device) for shape in ((1, 16, 4, 4, 6), (1, 9, 8), (1, 5, 32), (1, 3, 32))
    )
    sample_base(
        velocity_of(transformer),
        video=video,
        audio=audio,
        text=text,
        negative=negative,
        sampling=SamplingConfig(),
        steps=steps,
        image_latent=video[:, :, :1],
    )


@pytest.mark.parametrize("config", [TRANSFORMER, LOCAL, PLACED], ids=["global", "local", "placed"])
@torch.no_grad()
def test_coordinates_cross_once_for_each_text_and_nothing_else_does(config: TransformerConfig) -> None:
    """On the meta device, where a number that is read back is an error."""
    transformer = random_transformer(config, device="meta")
    for steps in (1, 4):
        _coordinates_on.cache_clear()
        with Crossings() as crossings:
            denoise(transformer, steps=steps)
        assert crossings.names == ["aten._to_copy.default"] * 2


@NO_GPU
@torch.inference_mode()
def test_cuda_steps_after_the_first_do_not_wait() -> None:
    for config in (TRANSFORMER, LOCAL):
        transformer = random_transformer(config, device="cuda")
        denoise(transformer, steps=2)
        torch.cuda.set_sync_debug_mode("error")
        try:
            denoise(transformer, steps=4)
        finally:
            torch.cuda.set_sync_debug_mode("default")
