"""Scaled dot-product attention over the whole sequence, or over a window of latent frames.

S tokens; heads first: q [..., Hq, S, D], k and v [..., Hkv, S, D]; query head i reads key/value head i // (Hq/Hkv).
"""

from collections.abc import Callable
from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

BLOCK = 128  # tokens a side of a mask's block


def full_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    shared = q.shape[-3] != k.shape[-3]
    if shared and (q.requires_grad or (q.is_cuda and q.dtype == torch.float32)):  # no fused kernel shares heads there
        k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], dim=-3) for x in (k, v))
        shared = False
    if q.requires_grad and not q.is_cuda:  # in training on a CPU the fused kernel's way back takes twice the time
        scores: Tensor = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
        return scores.softmax(dim=-1) @ v
    return scaled_dot_product_attention(q, k, v, enable_gqa=shared)


def local_attention(q: Tensor, k: Tensor, v: Tensor, *, num_frames: int, tokens_per_frame: int, radius: int) -> Tensor:
    """Video tokens see video within `radius` latent frames and everything else; other tokens see all. Exact.

    On a GPU one fused kernel that skips the blocks nobody may see; elsewhere one attention per latent frame.
    """
    attend = local_attention_fused if q.is_cuda else local_attention_by_frame
    return attend(q, k, v, num_frames=num_frames, tokens_per_frame=tokens_per_frame, radius=radius)


def local_attention_by_frame(
    q: Tensor, k: Tensor, v: Tensor, *, num_frames: int, tokens_per_frame: int, radius: int
) -> Tensor:
    """Unmasked attention over the keys that each latent frame may see, so memory grows with the window only."""
    num_video = num_frames * tokens_per_frame
    outputs = []
    for frame in range(num_frames):
        first = max(0, frame - radius) * tokens_per_frame
        last = min(num_frames, frame + radius + 1) * tokens_per_frame
        seen_k, seen_v = (torch.cat([x[..., first:last, :], x[..., num_video:, :]], dim=-2) for x in (k, v))
        here = q[..., frame * tokens_per_frame : (frame + 1) * tokens_per_frame, :]
        outputs.append(full_attention(here, seen_k, seen_v))
    outputs.append(full_attention(q[..., num_video:, :], k, v))
    return torch.cat(outputs, dim=-2)


def local_attention_fused(
    q: Tensor, k: Tensor, v: Tensor, *, num_frames: int, tokens_per_frame: int, radius: int
) -> Tensor:
    """The same by `flex_attention`, compiled on a GPU; elsewhere torch's unfused version of it."""
    mask = _window_mask(
        num_frames=num_frames,
        tokens_per_frame=tokens_per_frame,
        radius=radius,
        num_tokens=q.shape[-2],
        device=str(q.device),
    )
    attend: Callable[..., Tensor] = _compiled_flex_attention() if q.is_cuda else flex_attention  # type: ignore[assignment]
    out: Tensor = attend(q, k, v, block_mask=mask, enable_gqa=q.shape[-3] != k.shape[-3])
    return out


@cache
def _compiled_flex_attention() -> Callable[..., Tensor]:
    """Once, for clips of every size; fullgraph, for uncompiled it would keep a score of every pair of tokens."""
    return torch.compile(flex_attention, dynamic=True, fullgraph=True)


@lru_cache(maxsize=8)
def _window_mask(*, num_frames: int, tokens_per_frame: int, radius: int, num_tokens: int, device: str) -> BlockMask:
    """Block by block: torch's own `create_block_mask` looks at every pair, 69 GB of them for five seconds of 1080P."""
    num_video = num_frames * tokens_per_frame
    # Tensors, for numbers would be compiled into the kernel: one for each size of clip, and torch keeps few.
    per_frame, of_video, reach = (torch.tensor(n, device=device) for n in (tokens_per_frame, num_video, radius))

    def is_seen(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        near = (query // per_frame - key // per_frame).abs() <= reach
        return near | (query >= of_video) | (key >= of_video)

    starts = torch.arange(0, num_tokens, BLOCK, device=device)
    lasts = (starts + BLOCK - 1).clamp(max=num_tokens - 1)
    first_frames, last_frames = starts // tokens_per_frame, lasts.clamp(max=num_video - 1) // tokens_per_frame
    nearest = _either_way(first_frames[:, None] - last_frames)  # frames between two blocks, at least and at most
    farthest = _either_way(last_frames[:, None] - first_frames)
    some = (nearest <= radius) | _either_way(lasts[:, None] >= num_video)
    every = (farthest <= radius) | _either_way(starts[:, None] >= num_video)
    every &= ~_either_way((lasts < starts + BLOCK - 1)[:, None])  # the last block may be short
    return BlockMask.from_kv_blocks(
        *_listed(some & ~every),
        *_listed(every),
        BLOCK_SIZE=BLOCK,
        mask_mod=is_seen,
        seq_lengths=(num_tokens, num_tokens),
    )


def _either_way(blocks: Tensor) -> Tensor:
    return torch.maximum(blocks, blocks.T)


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """[queries, keys] -> how many key blocks each query block looks at, and which: these first, then the others."""
    order = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1).to(torch.int32)[None, None], order.to(torch.int32)[None, None]
