"""How long a large manifest takes to be validated and planned, and the memory of the process that does it."""

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.bench.figures import Figure

ROWS = 1_000_000
IMAGE_ROWS, IMAGES = 10_000, 300
ROW_GROUP = 100_000
WORDS = ("red", "blue", "green", "pink", "white"), ("circle", "square", "triangle"), ("bounces", "stays still", "grows")


def measure_manifest(rows: int = ROWS) -> dict[str, float]:
    """`seconds`, `cpu_s` and `peak_mb` of a process that checks `rows` rows without images and plans half of them.

    Reading the weights' vocabulary and importing torch are in the memory, not in the seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.parquet"
        write_rows(path, rows)
        command = [sys.executable, "-m", "tests.bench.manifest", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def measure_images(rows: int = IMAGE_ROWS, images: int = IMAGES) -> dict[str, float]:
    """The same for a manifest in a bucket of a real S3 server on this machine, every row with one of `images` images.

    The server runs on the same cores.
    """
    from tests.s3_server import running_swift  # brings pytest, which must not count as memory of what is measured

    with tempfile.TemporaryDirectory() as folder, running_swift(Path(folder)) as server:
        environment = os.environ | server.environment
        address = server.create_bucket()
        command = [sys.executable, "-m", "tests.bench.manifest"]
        for words in (["write", address, str(rows), str(images)], [f"{address}/manifest.parquet"]):
            done = subprocess.run([*command, *words], check=True, stdout=subprocess.PIPE, text=True, env=environment)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def figures() -> dict[str, Figure]:
    table, images = measure_manifest(), measure_images()
    return {
        "a million rows checked and planned": Figure(value=table["seconds"], unit="s", goal=60, is_limit=True),
        "memory for that, torch included": Figure(value=table["peak_mb"], unit="MB", goal=600, is_limit=True),
        "kept of each of these rows": Figure(value=table["bytes_a_row"], unit="bytes", goal=400, is_limit=True),
        "10,000 rows with 300 images on S3, server on the same cores": Figure(value=images["seconds"], unit="s"),
    }


def _write_images(address: str, rows: int, images: int) -> None:
    from pipeline.store import open_store

    store = open_store(address)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.put(f"images/{n}.jpg", _picture(n)), range(images)))
    table = pa.table(
        {
            "prompt": [f"Take {n}: it moves." for n in range(rows)],
            "image": [f"images/{n % images}.jpg" for n in range(rows)],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(table, Path(folder) / "manifest.parquet")
        store.put_file("manifest.parquet", Path(folder) / "manifest.parquet")


def _picture(number: int) -> bytes:
    """A JPEG of about 150 kB."""
    pixels = np.random.default_rng(number).integers(0, 256, (240, 360, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((720, 480)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def write_rows(path: Path, rows: int) -> None:
    """Prompts of about a hundred characters, each once; no clip ids, so that every row's is made of its content."""
    colours, things, moves = WORDS
    texts, integers = ("prompt", "ratio", "note"), ("duration", "seed", "priority")
    schema = pa.schema([*((name, pa.string()) for name in texts), *((name, pa.int64()) for name in integers)])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, ROW_GROUP):
            numbers = range(start, min(start + ROW_GROUP, rows))
            prompts = [
                f"Take {n}: a {colours[n % 5]} {things[n % 3]} {moves[n % 7 % 3]} in front of a wall, while a "
                f"{colours[n % 4]} {things[n // 3 % 3]} looks on in the evening light."
                for n in numbers
            ]
            columns = {
                "prompt": prompts,
                "ratio": [("16:9", "9:16", "1:1")[n % 3] for n in numbers],
                "note": [f"batch {n % 50}" for n in numbers],
                "duration": [3 + n % 3 for n in numbers],
                "seed": [n % 1000 for n in numbers],
                "priority": [n % 2 for n in numbers],
            }
            writer.write_table(pa.table(columns, schema=schema))


def _measure(path: str) -> dict[str, float]:
    from jobs.compose import compose_values
    from jobs.settings import run_settings
    from jobs.words import read_words
    from model.text import SPARE_TOKENS, build_token_counter
    from pipeline.ledger import record_key
    from pipeline.manifest.hashing import settings_hasher
    from pipeline.manifest.reading import read_manifest
    from pipeline.manifest.rows import Rules
    from pipeline.plan import make_plan
    from pipeline.weights.opening import open_weights

    settings = run_settings(compose_values("render", read_words([f"manifest={path}", "output=nowhere"])))
    count_tokens = build_token_counter(settings.model, open_weights(settings.weights, settings.storage))
    rules = Rules(model=settings.model, count_tokens=count_tokens, spare_tokens=SPARE_TOKENS)
    began, began_cpu = time.perf_counter(), time.process_time()
    manifest = read_manifest(
        settings.manifest,
        storage=settings.storage,
        rules=rules,
        hash_clip=settings_hasher(model_hash="0" * 16, media=settings.media),
    )
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    index = manifest.index
    done = frozenset(record_key(index.clip_id(n), index.settings_hash(n)) for n in range(0, len(index), 2))
    began, began_cpu = time.perf_counter(), time.process_time()
    plan = make_plan(index, done)
    seconds, cpu_s = seconds + time.perf_counter() - began, cpu_s + time.process_time() - began_cpu
    if len(plan.done) != len(done) or len(plan.to_render) != len(index) - len(done):
        raise AssertionError(f"{len(plan.done)} done and {len(plan.to_render)} to render of {len(index)}")
    # Not ru_maxrss: that of a child begins with its parent's.
    (peak_kb,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    kept = index.size_bytes / len(index)
    return {"seconds": seconds, "cpu_s": cpu_s, "peak_mb": int(peak_kb) * 1024 / 1e6, "bytes_a_row": kept}


def main(words: list[str]) -> None:
    if words[0] == "write":
        _write_images(words[1], int(words[2]), int(words[3]))
    else:
        print(json.dumps(_measure(words[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
