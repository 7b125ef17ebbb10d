"""A picture of an output: one line a clip, with its prompt, frames evenly in time and its sound as loudness over time.

python examples/contact_sheet.py outputs/demo sheet.png
"""

import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

NUM_FRAMES = 8
TILE = 96  # pixels of a frame's longer side
GAP, LABEL = 6, 18


def frames_of(mp4: Path) -> list[Image.Image]:
    with av.open(str(mp4)) as container:
        frames = [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    chosen = [frames[round(n * (len(frames) - 1) / (NUM_FRAMES - 1))] for n in range(NUM_FRAMES)]
    scale = TILE / max(chosen[0].size)
    size = (round(chosen[0].width * scale), round(chosen[0].height * scale))
    return [frame.resize(size, Image.Resampling.BICUBIC) for frame in chosen]


def loudness_of(wav: Path, *, columns: int) -> list[float]:
    """Peak in each column of time, 0 to 1."""
    with av.open(str(wav)) as container:
        samples = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
    return [float(np.abs(part.astype(float)).max()) / 32768 for part in np.array_split(samples, columns)]


def draw_clip(row: dict[str, Any], output: Path) -> Image.Image:
    frames = frames_of(output / row["render_mp4"])
    width = NUM_FRAMES * (TILE + GAP)
    line = Image.new("RGB", (width, LABEL + TILE + 34), "white")
    draw = ImageDraw.Draw(line)
    draw.text((2, 2), row["prompt"], fill="black", font=ImageFont.load_default(12))
    for n, frame in enumerate(frames):
        line.paste(frame, (n * (TILE + GAP) + (TILE - frame.width) // 2, LABEL + (TILE - frame.height) // 2))
    middle = LABEL + TILE + 16
    if row["render_wav"] is None:
        draw.text((2, middle - 6), "no sound asked for", fill="gray", font=ImageFont.load_default(10))
        return line
    for x, level in enumerate(loudness_of(output / row["render_wav"], columns=width - GAP)):
        draw.line([(x, middle - level * 14), (x, middle + level * 14)], fill=(60, 90, 160))
    return line


def main(output: Path, target: Path) -> None:
    rows = pq.read_table(output / "results.parquet").to_pylist()
    lines = [draw_clip(row, output) for row in rows if row["render_state"] == "SUCCEEDED"]
    sheet = Image.new("RGB", (lines[0].width, sum(line.height + GAP for line in lines)), "white")
    top = 0
    for line in lines:
        sheet.paste(line, (0, top))
        top += line.height + GAP
    sheet.save(target, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
