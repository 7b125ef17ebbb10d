"""Frames and tones for tests, and files made of them: what a codec would give, and what a player would show."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from model.shapes import ClipShape
from pipeline.media import encode_clip
from tests.clips import MEDIA

Array = npt.NDArray[Any]
WINDOW = 7  # frames; divides neither 36 nor the decoder's surplus


def shape_of(*, width: int = 80, height: int = 46, fps: int = 12, seconds: int = 3, rate: int = 24000) -> ClipShape:
    return ClipShape(
        num_frames=fps * seconds,
        height=height,
        width=width,
        fps=fps,
        num_samples=rate * seconds,
        sample_rate_hz=rate,
        video_latent=(16, (fps * seconds + 2) // 4 + 1, 6, 10),
        audio_latent=(12 * seconds + 1, 8),
    )


SHAPE = shape_of()


def windows(frames: Array) -> Iterator[Array]:
    for start in range(0, len(frames), WINDOW):
        yield frames[start : start + WINDOW]


def moving(shape: ClipShape, *, surplus: int = 1, border: int = 2) -> Array:
    """A gradient that moves, larger and longer than asked for, as decoders give it."""
    count, height, width = shape.num_frames + surplus, shape.height + border, shape.width
    n, y, x = np.ogrid[:count, :height, :width]
    red, green = (x * 255 // width + n * 3) % 256, np.broadcast_to(y * 255 // height, (1, height, 1))
    return np.stack(np.broadcast_arrays(red, green, n * 255 // count), axis=-1).astype(np.uint8)


def flat(shape: ClipShape, colour: tuple[int, int, int]) -> Array:
    return np.broadcast_to(np.array(colour, np.uint8), (shape.num_frames, shape.height, shape.width, 3))


def tone(shape: ClipShape, *, channels: int = 1, hz: float = 440.0, extra: int = 1000) -> npt.NDArray[np.float32]:
    seconds = np.arange(shape.num_samples + extra) / shape.sample_rate_hz
    return np.tile((0.5 * np.sin(2 * np.pi * hz * seconds)).astype(np.float32), (channels, 1))


def encode(folder: Path, frames: Array, **changes: Any) -> dict[str, Path]:
    options: dict[str, Any] = {"shape": SHAPE, "waveform": None, "stem": "clip", "settings": MEDIA} | changes
    return encode_clip(windows(frames), folder=folder, **options)


def decoded(path: Path) -> Array:
    """All frames as RGB, converted as the file's own tags say: what a player shows."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def sound_of(path: Path) -> Array:
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
