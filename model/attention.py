"""Scaled dot-product attention over the whole sequence, or over a window of latent frames.

S tokens; heads first: q [..., Hq, S, D], k and v [..., Hkv, S, D]; query head i reads key/value head i // (Hq/Hkv).
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def full_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    repeat = q.shape[-3] // k.shape[-3]
    if repeat > 1:
        k, v = (x.repeat_interleave(repeat, dim=-3) for x in (k, v))
    return scaled_dot_product_attention(q, k, v)


def local_attention(q: Tensor, k: Tensor, v: Tensor, *, num_frames: int, tokens_per_frame: int, radius: int) -> Tensor:
    """Video tokens see video within `radius` latent frames and everything else; other tokens see all.

    Exact and unmasked: one attention per latent frame over the keys it may see, so memory grows with the window only.
    """
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
