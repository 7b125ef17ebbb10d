"""Delivered files <-> arrays: reads an mp4 with its sound, and delivers frames that no model made in the same way."""

from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from model.shapes import ClipShape
from pipeline.media import encode_clip
from pipeline.types import MediaSettings


def read_mp4(mp4: Path) -> tuple[Tensor, Tensor | None, int]:
    """Frames uint8 [F, H, W, 3], waveform [samples] (None: no sound track; two channels: their mean), its rate in Hz.

    Samples that the file says to leave out (the encoder's own delay) are left out.
    """
    with av.open(str(mp4)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    with av.open(str(mp4)) as container:
        if not container.streams.audio:
            return torch.from_numpy(frames), None, 0
        stream = container.streams.audio[0]
        parts = [(frame.pts or 0, frame.to_ndarray()) for frame in container.decode(stream)]
        rate_hz = stream.rate
    samples = np.concatenate([part for _, part in parts], axis=1).mean(axis=0)
    return torch.from_numpy(frames), torch.from_numpy(samples[max(0, -parts[0][0]) :]).float(), rate_hz


def deliver(
    frames: Tensor, waveform: Tensor | None, *, shape: ClipShape, folder: Path, stem: str, settings: MediaSettings
) -> Path:
    """Writes the mp4 that `happyhorse render` would have written of these frames [F, H, W, 3] and [samples]."""
    sound = None if waveform is None else waveform[None].numpy()
    files = encode_clip(
        iter([frames.numpy()]), shape=shape, waveform=sound, folder=folder, stem=stem, settings=settings
    )
    return files["mp4"]
