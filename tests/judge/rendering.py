"""Renders what was asked for with the real command line, and judges the files that it delivered."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.foal.judge import Verdict, judge_clip
from model.parts import parts_of
from tests.configured import load_model
from tests.e2e.runs import BIN, ROOT, records, write_manifest
from tests.judge.files import read_mp4
from tests.judge.prompts import Asked

START_S, CLIP_S = 600, 300  # deadlines: of a launch, and of each of its clips
NOTHING = Verdict(
    background=None,
    colour=None,
    shape=None,
    shape_scores=None,
    motion=None,
    sound=None,
    contact_times_s=(),
    onset_times_s=(),
    edge_width_px=None,
    one_object=0.0,
)


@dataclass(frozen=True, kw_only=True)
class Clip:
    asked: Asked
    verdict: Verdict  # NOTHING where no file was delivered
    mp4: Path | None
    sampling_s: float | None  # wall clock, one thread


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One launch of `happyhorse render`."""

    clips: Sequence[Clip]
    steps: int
    guided: bool


class NotBuilt(Exception):
    """The model, the resolution or a part of the weights is not there yet."""


class RenderFailed(Exception):
    """The command line started nothing, or stopped."""


def check_built(model: str, resolution: str, *, weights: Path, words: Sequence[str] = ()) -> None:
    """Raises NotBuilt, saying what is missing: the model, its resolution, or a part of its weights."""
    if not (ROOT / "conf" / "model" / f"{model}.yaml").is_file():
        raise NotBuilt(f"model={model}")
    config = load_model(model, *words)
    if resolution not in config.sizes:
        raise NotBuilt(f"model={model} at {resolution}")
    if missing := [part for part in parts_of(config) if not (weights / part).is_dir()]:
        raise NotBuilt(f"model={model}, whose weights lack {', '.join(missing)}")


def render(
    asked: Sequence[Asked], *, model: str, resolution: str, weights: Path, folder: Path, words: Sequence[str] = ()
) -> Rendered:
    """Each of these as a clip in `folder`, where what is there already stays. `words`: more of the command line."""
    check_built(model, resolution, weights=weights, words=words)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = write_manifest(folder / "manifest.parquet", [each.row(resolution=resolution) for each in asked])
    command = [str(BIN / "happyhorse"), "render", f"manifest={manifest}", f"output={folder}", f"model={model}"]
    command += [f"weights={weights}", *words]
    with (folder / "printed.txt").open("w") as printed:
        code = subprocess.run(
            command, cwd=ROOT, stdout=printed, stderr=printed, timeout=START_S + CLIP_S * len(asked), check=False
        ).returncode
    if code not in (0, 1):  # 1: some clips failed, which count as wrong
        raise RenderFailed(f"exit {code}\n{(folder / 'printed.txt').read_text()[-2000:]}")
    delivered = {record["clip_id"]: record for record in records(folder).values()}
    clips = []
    for each in asked:
        record = delivered.get(each.clip_id)
        mp4 = folder / record["files"]["mp4"]["name"] if record else None
        seconds = record["seconds"]["render"] if record else None
        clips.append(Clip(asked=each, verdict=judge_file(mp4) if mp4 else NOTHING, mp4=mp4, sampling_s=seconds))
    steps, guided = _sampling(folder)
    return Rendered(clips=clips, steps=steps, guided=guided)


def judge_file(mp4: Path) -> Verdict:
    frames, waveform, rate_hz = read_mp4(mp4)
    return judge_clip(frames, waveform, sample_rate_hz=rate_hz, fps=12)


def _sampling(folder: Path) -> tuple[int, bool]:
    """Steps of the first stage and whether they were guided, as the latest run says; (0, False): none has rendered."""
    runs = sorted((folder / "history").glob("*.json"))
    kinds = json.loads(runs[-1].read_text())["kinds"] if runs else []
    return max((kind["kind"]["steps"] for kind in kinds), default=0), any(kind["kind"]["guided"] for kind in kinds)
