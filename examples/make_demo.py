"""Makes demo.parquet (and the picture it holds) from demo.jsonl: `.venv/bin/python examples/make_demo.py`.

The picture travels inside the table, so that the Parquet file alone is a whole manifest, on disk or in a bucket.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
SIDE, FINER = 320, 4  # pixels; drawn four times finer, for smooth edges
COLUMNS = pa.schema(
    {
        "clip_id": pa.string(),
        "prompt": pa.string(),
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "audio": pa.bool_(),
        "ratio": pa.string(),
        "duration": pa.int64(),
        "seed": pa.int64(),
    }
)


def draw_picture(path: Path) -> None:
    """A blue circle at the left of a white square: where a circle that moves to the right begins."""
    picture = Image.new("RGB", (SIDE * FINER, SIDE * FINER), (247, 247, 247))
    x, y, radius = 70 * FINER, 180 * FINER, 55 * FINER
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=(26, 64, 230))
    picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(path)


def demo_table() -> pa.Table:
    rows = [json.loads(line) for line in (HERE / "demo.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if "image" in row:
            row["image"] = {"bytes": (HERE / row["image"]).read_bytes(), "path": row["image"]}
    return pa.Table.from_pylist(rows, schema=COLUMNS)


if __name__ == "__main__":
    draw_picture(HERE / "blue_circle.png")
    pq.write_table(demo_table(), HERE / "demo.parquet")
    print(f"wrote {HERE / 'demo.parquet'} and {HERE / 'blue_circle.png'}")
