"""`python -m tests.bench.codecs [--resolution 540P] [--latents 14] [--rows 256 0]`: Turbo of real size on this CPU.

107 M random parameters in bfloat16, a clip of that many latent frames, window by window as a finisher decodes it: what
each window took, and the most memory that the process ever held beside what `model/codec_cost.py` says of tensors. Each
of `--rows` (`model.codecs.band_rows`) is a process of its own. Not part of `make bench`: at 540P it takes many minutes.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from model.codec_cost import TURBO_PARAMETERS, decoder_memory
from model.codecs.turbo import TurboDecoder
from model.shapes import clip_shape
from tests.configured import load_model
from tests.model.test_codec_cost import TURBO


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.codecs")
    parser.add_argument("--resolution", default="540P")
    parser.add_argument("--latents", type=int, default=14, help="latent frames; 7 a window")
    parser.add_argument("--rows", type=int, nargs="+", default=[256], help="rows of a band; 0: whole pictures")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if len(given.rows) == 1:
        measure(given.resolution, latents=given.latents, rows=given.rows[0], threads=given.threads)
        return
    for rows in given.rows:
        words = ["--resolution", given.resolution, "--latents", str(given.latents), "--threads", str(given.threads)]
        subprocess.run([sys.executable, "-m", "tests.bench.codecs", *words, "--rows", str(rows)], check=True)


def measure(resolution: str, *, latents: int, rows: int, threads: int) -> None:
    name = "magihuman_540p" if resolution in ("256P", "540P") else "magihuman_1080p"
    model = load_model(name, f"model.codecs.band_rows={rows}")
    shape = clip_shape(model, resolution=resolution, ratio="16:9", duration_s=5)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    decoder = TurboDecoder(TURBO).to(torch.bfloat16).eval().requires_grad_(False)
    decoder.band_rows = rows
    count = sum(each.numel() for each in decoder.parameters())
    assert count == TURBO_PARAMETERS
    latent = torch.randn(48, latents, *shape.video_latent[2:])
    bound = decoder_memory(model, shape)
    print(
        f"{resolution}, {shape.width}x{shape.height}, {latents} latent frames, bands of {rows} rows, {threads} threads"
    )
    print(f"counted: {bound.weights / 1e9:.1f} GB of weights, tensors of at most {bound.activations / 1e9:.1f} GB")
    before = began = time.perf_counter()
    num_frames = 0
    idle_gb = peak_gb()
    for n, window in enumerate(decoder.decode(latent), 1):
        now, num_frames = time.perf_counter(), num_frames + len(window)
        values = {"window": n, "frames": len(window), "seconds": round(now - before, 1), "peak_gb": round(peak_gb(), 2)}
        print(json.dumps(values), flush=True)
        before = now
    more_gb = peak_gb() - idle_gb
    print(f"{num_frames} frames in {time.perf_counter() - began:.0f} s; {more_gb:.1f} GB more than before the first")


def peak_gb() -> float:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
