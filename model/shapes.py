"""Pixels, latents and tokens of a clip: the only place that knows the "+1 frame" rule. Standard library only.

C latent channels, T latent frames, H and W latent cells, L audio latents.
"""

import math
from dataclasses import dataclass

from model.config import ModelConfig, Size

TIME_STRIDE = 4  # video frames a latent frame after the first


def latent_frames(num_frames: int) -> int:
    """Least T whose 4(T-1)+1 decoded frames cover `num_frames`."""
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}, expected at least 1")
    return -(-(num_frames - 1) // TIME_STRIDE) + 1


def decoded_frames(num_latent_frames: int) -> int:
    return TIME_STRIDE * (num_latent_frames - 1) + 1


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """All sizes of one clip, from its delivered pixels to its tokens."""

    num_frames: int  # delivered
    height: int
    width: int
    fps: int
    num_samples: int  # delivered samples per channel at sample_rate_hz
    sample_rate_hz: int
    video_latent: tuple[int, int, int, int]  # C, T, H, W
    audio_latent: tuple[int, int]  # L, C
    first_latent: tuple[int, int, int, int] | None = (
        None  # C, T, H, W of the first stage, where super-resolution follows
    )

    @property
    def num_video_tokens(self) -> int:
        """Of the last stage."""
        return _patches(self.video_latent)

    @property
    def num_first_tokens(self) -> int:
        """Video and audio tokens of the first stage."""
        return _patches(self.first_latent or self.video_latent) + self.audio_latent[0]

    @property
    def num_tokens(self) -> int:
        """Video and audio tokens of the last stage (text comes on top)."""
        return self.num_video_tokens + self.audio_latent[0]


def _patches(latent: tuple[int, int, int, int]) -> int:
    _, t, h, w = latent
    return t * (h // 2) * (w // 2)


def clip_shape(model: ModelConfig, *, resolution: str, ratio: str, duration_s: int) -> ClipShape:
    """Sizes of a clip. Raises KeyError for a resolution or ratio the model's table lacks."""
    size: Size = model.sizes[resolution][ratio]
    num_frames = duration_s * model.fps
    transformer = model.transformer
    time = (transformer.video_latent_channels, latent_frames(num_frames))
    first = None
    if size.first_latent_height is not None and size.first_latent_width is not None:
        first = (*time, size.first_latent_height, size.first_latent_width)
    return ClipShape(
        num_frames=num_frames,
        height=size.height,
        width=size.width,
        fps=model.fps,
        num_samples=duration_s * model.sample_rate_hz,
        sample_rate_hz=model.sample_rate_hz,
        video_latent=(*time, size.latent_height, size.latent_width),
        audio_latent=(duration_s * model.audio_latents_per_s + 1, transformer.audio_in_channels),
        first_latent=first,
    )


def nearest_ratio(model: ModelConfig, *, resolution: str, height: int, width: int) -> str:
    """The ratio of the model's table closest to an image's own (image-to-video follows the image)."""
    sizes = model.sizes[resolution]

    def distance(ratio: str) -> float:
        have = sizes[ratio].width / sizes[ratio].height
        want = width / height
        return max(have / want, want / have)

    return min(sizes, key=distance)


GRID = 2  # latent cells a patch and side: latent heights and widths are multiples of it


def table_size(ratio: str, *, num_pixels: int, spatial_scale: int) -> Size:
    """The cell of a size table for a ratio such as 16:9: about `num_pixels` delivered, both sides even.

    The decoded frame is the least one on the latent grid that holds the delivered one.
    """
    across, down = map(int, ratio.split(":"))
    height, width = (2 * round(math.sqrt(num_pixels * part) / 2) for part in (down / across, across / down))
    step = GRID * spatial_scale
    return Size(
        latent_height=-(-height // step) * GRID, latent_width=-(-width // step) * GRID, height=height, width=width
    )
