"""Where each token stands in time and space, and the rotary angles that follow. Source: spec of the released model.

S tokens (video, audio, text in this order), B = head_dim/8 bands. A coordinate row is
(t, h, w, size_t, size_h, size_w, reference_t, reference_h, reference_w).
"""

import torch
from torch import Tensor

from model.config import CoordsStyle


def _grid(size: tuple[int, int, int], reference: tuple[int, int, int], *, start_t: int = 0) -> Tensor:
    t, h, w = size
    axes = torch.meshgrid(torch.arange(start_t, start_t + t), torch.arange(h), torch.arange(w), indexing="ij")
    place = torch.stack([axis.flatten() for axis in axes], dim=-1)
    constant = torch.tensor([*size, *reference]).expand(place.shape[0], 6)
    return torch.cat([place, constant], dim=-1).float()


def coordinates(video_grid: tuple[int, int, int], *, audio_length: int, text_length: int, style: CoordsStyle) -> Tensor:
    """[S, 9] float32 for a video of `video_grid` = (T, H/2, W/2) patches, L audio latents and n text tokens.

    v2 (base, distilled): audio time runs on the video's latent clock and all text sits at position 0.
    v1 (super-resolution): audio spans the video's latent frames and text two of them.
    """
    if style == "v2":
        audio_reference = ((audio_length - 1) // 4 + 1, 1, 1)
        text = _grid((text_length, 1, 1), (1, 1, 1), start_t=-text_length)
    else:
        audio_reference = (video_grid[0], 1, 1)
        text = _grid((text_length, 1, 1), (2, 1, 1))
    return torch.cat([_grid(video_grid, video_grid), _grid((audio_length, 1, 1), audio_reference), text])


def rotary_table(coords: Tensor, bands: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates [S, 9] and bands [B] -> (sin, cos), each [S, 3B]: the t bands, then h, then w."""
    place, size, reference = coords.split(3, dim=-1)
    scale = torch.where(size > 1, (reference - 1) / (size - 1).clamp(min=1), torch.ones_like(size))
    centre = (size - 1) / 2
    centre[:, 0] = 0  # time counts from the start, space from the middle
    position = (place - centre) * scale
    angles = (position[:, :, None] * bands).flatten(1)
    return angles.sin(), angles.cos()


PLACE_PERIOD = 16  # latent frames of the slowest sine of absolute time


def place_features(coords: Tensor, count: int) -> Tensor:
    """[S, 9] -> [S, 8*count]: sines and cosines of time, and of time, height and width as parts of the whole."""
    place, size, reference = coords.split(3, dim=-1)
    part = (place + 0.5) / size
    time = place[:, :1] * (reference[:, :1] / size[:, :1]) / (PLACE_PERIOD / 2)
    angles = torch.cat([time, part], dim=-1)[:, :, None] * torch.arange(1, count + 1, device=coords.device) * torch.pi
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Half-split rotary over the first 6B of head_dim = 8B channels of x [..., S, heads, head_dim]; the rest passes."""
    sin, cos = (part[..., None, :] for part in table)
    width = sin.shape[-1]
    first, second, rest = x[..., :width], x[..., width : 2 * width], x[..., 2 * width :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)
