"""Local attention: by frames and fused, against a mask over all pairs; and passes that share a forward."""

import dataclasses
import warnings

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.functional import scaled_dot_product_attention

from model import attention
from model.attention import local_attention_by_frame, local_attention_fused
from model.transformer import Transformer
from tests.allocations import Allocations
from tests.models import TRANSFORMER

FRAMES, PER_FRAME, OTHERS = 7, 6, 9  # 51 tokens: no multiple of a block


def qkv(*, num_heads_kv: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    num_tokens = FRAMES * PER_FRAME + OTHERS
    q, k, v = (torch.randn(1, heads, num_tokens, 16, generator=generator) for heads in (4, num_heads_kv, num_heads_kv))
    return q, k, v


def masked(q: Tensor, k: Tensor, v: Tensor, *, radius: int) -> Tensor:
    """The definition: every pair of tokens asked whether it may meet."""
    frame = torch.arange(q.shape[-2]) // PER_FRAME
    is_video = torch.arange(q.shape[-2]) < FRAMES * PER_FRAME
    near = (frame[:, None] - frame[None]).abs() <= radius
    seen = near | ~is_video[:, None] | ~is_video[None]
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=seen)


@pytest.mark.parametrize("attend", [local_attention_by_frame, local_attention_fused])
@pytest.mark.parametrize("radius", [0, 1, 3, 20])
@pytest.mark.parametrize("num_heads_kv", [1, 2, 4])
def test_local_attention_is_attention_under_its_mask(attend: object, radius: int, num_heads_kv: int) -> None:
    q, k, v = qkv(num_heads_kv=num_heads_kv)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        got = attend(q, k, v, num_frames=FRAMES, tokens_per_frame=PER_FRAME, radius=radius)  # type: ignore[operator]
    torch.testing.assert_close(got, masked(q, k, v, radius=radius), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
@pytest.mark.filterwarnings("ignore:.*script_method.* is deprecated:DeprecationWarning")
def test_the_fused_kernel_is_compiled_once_for_clips_of_every_size() -> None:
    """As a GPU uses it, with torch's compiler for CPUs."""
    torch._dynamo.reset()
    counters.clear()
    attend = attention._compiled_flex_attention()
    for frames, per_frame, others, radius in ((7, 24, 35, 2), (16, 60, 151, 3), (9, 100, 50, 1)):
        num_tokens = frames * per_frame + others
        q, k, v = (torch.randn(1, heads, num_tokens, 32) for heads in (8, 4, 4))
        sizes = {"num_frames": frames, "tokens_per_frame": per_frame, "radius": radius}
        mask = attention._window_mask(**sizes, num_tokens=num_tokens, device="cpu")
        got = attend(q, k, v, block_mask=mask, enable_gqa=True)
        torch.testing.assert_close(got, local_attention_by_frame(q, k, v, **sizes), rtol=1e-4, atol=1e-5)
        assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("radius", [None, 1], ids=["global", "local"])
def test_two_prompts_in_one_forward_are_two_forwards(radius: int | None) -> None:
    local = {} if radius is None else {"local_attn_layers": (1, 2), "frame_receptive_field": radius}
    transformer = random_transformer(**local)
    generator = torch.Generator().manual_seed(1)
    video = torch.randn(1, 16, 5, 4, 6, generator=generator)
    audio, *texts = (torch.randn(1, n, c, generator=generator) for n, c in ((7, 8), (5, 32), (11, 32)))
    together = transformer.forward_each(video, audio, texts)
    for text, (video_out, audio_out) in zip(texts, together, strict=True):
        video_alone, audio_alone = transformer(video, audio, text)
        torch.testing.assert_close(video_out, video_alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(audio_out, audio_alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0][0], together[1][0], atol=1e-3)


@torch.no_grad()
def random_transformer(**changes: object) -> Transformer:
    config = dataclasses.replace(TRANSFORMER, **changes)  # type: ignore[arg-type]
    transformer = Transformer(config, dtype=torch.float32).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for tensor in transformer.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
    return transformer


@pytest.mark.parametrize(
    ("num_frames", "tokens_per_frame", "radius", "others"),
    [(7, 24, 2, 35), (16, 60, 3, 151), (32, 64, 11, 326), (5, 128, 1, 128), (9, 100, 0, 5), (3, 300, 1, 129)],
)
def test_the_mask_by_blocks_is_the_one_of_all_pairs(
    num_frames: int, tokens_per_frame: int, radius: int, others: int
) -> None:
    num_video = num_frames * tokens_per_frame
    sizes = {"num_tokens": num_video + others, "device": "cpu"}
    mask = attention._window_mask(num_frames=num_frames, tokens_per_frame=tokens_per_frame, radius=radius, **sizes)
    pairs = create_block_mask(mask.mask_mod, None, None, num_video + others, num_video + others, device="cpu")
    for name in ("kv", "full_kv"):
        for got, expected in zip(blocks_of(mask, name), blocks_of(pairs, name), strict=True):
            assert got == expected


def blocks_of(mask: BlockMask, name: str) -> list[list[int]]:
    """Key blocks that each query block looks at."""
    counts, indices = getattr(mask, f"{name}_num_blocks")[0, 0], getattr(mask, f"{name}_indices")[0, 0]
    return [sorted(row[:count]) for row, count in zip(indices.tolist(), counts.tolist(), strict=True)]


def test_the_mask_of_1080p_needs_no_memory_to_speak_of() -> None:
    with Allocations() as made:
        attention._window_mask(num_frames=32, tokens_per_frame=2040, radius=11, num_tokens=65418, device="cpu")
    assert made.peak_bytes < 50e6


@pytest.mark.parametrize("slice_tokens", [1, 7, 36, 37, 38, 1000])
def test_slices_of_a_long_sequence_are_the_whole(monkeypatch: pytest.MonkeyPatch, slice_tokens: int) -> None:
    transformer = random_transformer()
    generator = torch.Generator().manual_seed(1)
    video = torch.randn(1, 16, 5, 4, 6, generator=generator)  # 30 tokens, then 7 of sound and 5 of text
    audio, text = (torch.randn(1, n, c, generator=generator) for n, c in ((7, 8), (5, 32)))
    whole = transformer(video, audio, text)
    monkeypatch.setattr("model.layers.SLICE_TOKENS", slice_tokens)
    for got, expected in zip(transformer(video, audio, text), whole, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
