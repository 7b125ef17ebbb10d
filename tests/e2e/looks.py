"""What a delivered file shows and sounds like, from its mean pixels and its loudness alone."""

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

OBJECT_COLOURS = {
    "red": (230, 26, 31),
    "orange": (255, 140, 13),
    "yellow": (250, 230, 26),
    "green": (26, 166, 51),
    "cyan": (26, 217, 230),
    "blue": (26, 64, 230),
    "purple": (128, 31, 166),
    "pink": (255, 128, 191),
}
BACKGROUND_COLOURS = {"white": (247, 247, 247), "black": (8, 8, 8), "gray": (128, 128, 128), "brown": (102, 64, 31)}
BORDER = 3  # pixels at the edge of the frame that count as background
SILENT_DB = -40.0  # quieter than this, over the whole clip, is silence

Pixels = npt.NDArray[np.float64]


def frames_of(mp4: Path) -> Pixels:
    """[F, H, W, 3] in 0..255."""
    with av.open(str(mp4)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(float)


def background_of(frames: Pixels) -> Pixels:
    """Mean colour of the border, its brightest and darkest quarter left out (the object may touch it)."""
    rows = frames[:, [*range(BORDER), *range(-BORDER, 0)]].reshape(-1, 3)
    columns = frames[:, :, [*range(BORDER), *range(-BORDER, 0)]].reshape(-1, 3)
    border = np.concatenate([rows, columns])
    order = np.argsort(border.sum(-1))
    return np.asarray(border[order[len(order) // 4 : -len(order) // 4]].mean(0))


def object_colour_of(frames: Pixels) -> Pixels:
    """Mean colour of the pixels that differ most from the background."""
    difference = np.linalg.norm(frames - background_of(frames), axis=-1)
    return np.asarray(frames[difference > max(40.0, 0.7 * np.quantile(difference, 0.995))].mean(0))


def nearest(colour: Pixels, names: dict[str, tuple[int, int, int]]) -> str:
    return min(names, key=lambda name: float(np.linalg.norm(colour - np.array(names[name]))))


def loudness_db(mp4: Path) -> float:
    """RMS of the whole sound track, in dB of full scale."""
    with av.open(str(mp4)) as container:
        samples = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    return 20 * float(np.log10(max(np.sqrt(np.mean(samples.astype(float) ** 2)), 1e-9)))
