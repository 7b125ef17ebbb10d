"""The foal does what its prompts say, and it is the Transformer that does it: with its weights shuffled, chance."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.e2e.looks import (
    BACKGROUND_COLOURS,
    OBJECT_COLOURS,
    SILENT_DB,
    background_of,
    frames_of,
    loudness_db,
    nearest,
    object_colour_of,
)
from tests.e2e.runs import ROOT, Caller, records, said, write_manifest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WEIGHTS = ROOT / "model" / "foal" / "weights"
WANTED = 0.8
STEPS = 16
MOTIONS = ("moves from left to right", "moves from right to left", "bounces up and down", "stays still")
SOUNDS = {"in silence": True, "with a low hum": False, "with a high tone": False, "without any sound": True}


def prompts() -> list[dict[str, str | int | bool]]:
    """24 rows that walk through colours, backgrounds, motions and sounds at unequal paces."""
    rows: list[dict[str, str | int | bool]] = []
    for n in range(24):
        colour, background = list(OBJECT_COLOURS)[n % 8], list(BACKGROUND_COLOURS)[(n + n // 8) % 4]
        shape, motion = ("circle", "square", "triangle")[n % 3], MOTIONS[(n // 2) % 4]
        sound = list(SOUNDS)[(n + n // 4) % 4]
        rows.append(
            {
                "clip_id": f"clip-{n:02d}",
                "prompt": f"A {colour} {shape} {motion} on a {background} background, {sound}.",
                "duration": 3,
                "steps": STEPS,
                "seed": 100 + n,
                "colour": colour,
                "background": background,
                "silent": SOUNDS[sound],
            }
        )
    return rows


def score(output: Path, rows: list[dict[str, str | int | bool]]) -> dict[str, float]:
    """Share of rows whose file shows and sounds like its prompt."""
    files = {record["clip_id"]: output / record["files"]["mp4"]["name"] for record in records(output).values()}
    hits = {"colour": 0, "background": 0, "sound": 0}
    for row in rows:
        mp4 = files[str(row["clip_id"])]
        frames = frames_of(mp4)
        hits["colour"] += nearest(object_colour_of(frames), OBJECT_COLOURS) == row["colour"]
        hits["background"] += nearest(background_of(frames), BACKGROUND_COLOURS) == row["background"]
        hits["sound"] += (loudness_db(mp4) < SILENT_DB) == row["silent"]
    return {name: count / len(rows) for name, count in hits.items()}


def test_clips_show_and_sound_like_their_prompts(caller: Caller, tmp_path: Path) -> None:
    rows = prompts()
    manifest = write_manifest(tmp_path / "manifest.parquet", rows)
    done = caller.run("render", f"manifest={manifest}", f"output={tmp_path / 'output'}")
    assert done.returncode == 0, said(done)
    scores = score(tmp_path / "output", rows)
    print(json.dumps(scores))
    assert min(scores.values()) >= WANTED, scores


def test_with_shuffled_weights_the_same_check_falls_to_chance(caller: Caller, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(WEIGHTS, weights)
    shuffle(weights / "base" / "model.safetensors")
    rows = prompts()
    manifest = write_manifest(tmp_path / "manifest.parquet", rows)
    done = caller.run("render", f"manifest={manifest}", f"output={tmp_path / 'output'}", f"weights={weights}")
    assert done.returncode == 0, said(done)
    scores = score(tmp_path / "output", rows)
    print(json.dumps(scores))
    assert scores["colour"] <= 0.4, scores  # one in eight by chance
    assert scores["background"] <= 0.55, scores  # one in four
    assert 0.2 <= scores["sound"] <= 0.75, scores  # one in two


def shuffle(path: Path) -> None:
    """Every tensor keeps its values and its shape, in another order."""
    generator = torch.Generator().manual_seed(0)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = {
        name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape)
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, metadata)
