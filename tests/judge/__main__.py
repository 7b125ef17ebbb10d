"""`make judge`: renders held-out prompts, judges the delivered files, prints what was wanted and what was measured.

`--only base drawn image distilled sharp` for some of it, `--clips 24` for fewer prompts, `--out DIR` keeps the clips
and goes on where it stopped; words such as `model.sampling.steps=16` go to `happyhorse render`. A
whole run of the repository's weights writes docs/benchmarks/foal.md and .json. Exit code 1: a cell was missed, or clips
could not be rendered.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch

from model.weights import LocalWeights, weights_digest
from pipeline.planning.history import cpu_name
from tests.e2e.runs import ROOT
from tests.judge import cells, report
from tests.judge.prompts import SEED, held_out_prompts
from tests.judge.references import BUILTIN, RoundTrip, judge_enlarged, median_ratio
from tests.judge.rendering import Clip, NotBuilt, Rendered, RenderFailed, render
from tests.judge.report import Section

CLIPS = 128
IMAGE_SHARE, SHARP_SHARE = 1 / 2, 3 / 8  # of the prompts
ONE_CORE = ("parallel=tp1", "parallel.groups=1")
DOCS = ROOT / "docs" / "benchmarks" / "foal"


@dataclass(frozen=True, kw_only=True)
class Judge:
    """One call of the command."""

    folder: Path
    num_clips: int
    seed: int
    weights: Path
    words: Sequence[str] = ()
    parallel: Sequence[str] = field(default=ONE_CORE)

    def _render(
        self, name: str, *, model: str, count: int, resolution: str = "64P", with_image: bool = False
    ) -> Rendered:
        asked = held_out_prompts(count, seed=self.seed, with_image=with_image)
        print(f"{name}: {count} clips of model={model} at {resolution}", file=sys.stderr, flush=True)
        return render(
            asked,
            model=model,
            folder=self.folder / name,
            resolution=resolution,
            weights=self.weights,
            words=[*self.parallel, *self.words],
        )

    @cached_property
    def base_clips(self) -> Rendered:
        return self._render("base", model="foal", count=self.num_clips)

    @cached_property
    def truth(self) -> cells.Judged:
        """The base's scenes as they should look, through the codec and out as files."""
        round_trip = RoundTrip(self.folder / "drawn", weights=self.weights)
        return [(asked, round_trip.judge(asked)) for asked in held_out_prompts(self.num_clips, seed=self.seed)]

    def base(self) -> Section:
        rendered = self.base_clips
        judged = judged_of(rendered.clips)
        edges = cells.edge_cell(median_ratio([v for _, v in judged], [v for _, v in self.truth]))
        return Section(
            title=f"Base, {len(judged)} prompts",
            cells=[*cells.text_cells(judged, cells.BASE), edges],
            mistakes=cells.mistakes(judged),
            words=times(rendered),
        )

    def drawn(self) -> Section:
        return Section(
            title="The same scenes drawn, not rendered: what the judge sees through the foal's codecs",
            cells=cells.text_cells(self.truth, cells.DRAWN),
            mistakes=cells.mistakes(self.truth),
        )

    def image(self) -> Section:
        rendered = self._render("image", model="foal", count=round(self.num_clips * IMAGE_SHARE), with_image=True)
        judged = judged_of(rendered.clips)
        return Section(
            title=f"Image-to-video, {len(judged)} first frames, prompts that name neither colour nor shape",
            cells=cells.image_cells(judged),
            mistakes=cells.mistakes(judged),
            words=times(rendered),
        )

    def distilled(self) -> Section:
        rendered = self._render("distilled", model="foal_distill", count=self.num_clips)
        judged = judged_of(rendered.clips)
        return Section(
            title=f"Distilled, the same {len(judged)} prompts",
            cells=cells.distilled_cells(judged, steps=rendered.steps, guided=rendered.guided),
            mistakes=cells.mistakes(judged),
            words=times(rendered),
        )

    def sharp(self) -> Section:
        """Super-resolution against the first of the base's clips: same prompts, same seeds."""
        count = round(self.num_clips * SHARP_SHARE)
        rendered = self._render("sharp", model="foal", count=count, resolution="128P")
        before = self.base_clips.clips[:count]
        both = [(small, large) for small, large in zip(before, rendered.clips, strict=True) if small.mp4 is not None]
        enlarged = [judge_enlarged(small.mp4) for small, _ in both if small.mp4 is not None]
        judged = judged_of(rendered.clips)
        return Section(
            title=f"Super-resolution, 128P, the first {count} of these prompts",
            cells=cells.sharp_cells(
                judged, judged_of(before), sharper=median_ratio(enlarged, [large.verdict for _, large in both])
            ),
            mistakes=cells.mistakes(judged),
            words=times(rendered),
        )


GROUPS: dict[str, Callable[[Judge], Section]] = {
    "base": Judge.base,
    "drawn": Judge.drawn,
    "image": Judge.image,
    "distilled": Judge.distilled,
    "sharp": Judge.sharp,
}


def judged_of(clips: Sequence[Clip]) -> cells.Judged:
    return [(clip.asked, clip.verdict) for clip in clips]


def times(rendered: Rendered) -> str:
    """What sampling took, in the renderer's own records."""
    by_length: dict[int, list[float]] = {}
    for clip in rendered.clips:
        if clip.sampling_s is not None:
            by_length.setdefault(clip.asked.scene.duration_s, []).append(clip.sampling_s)
    said = [f"{statistics.median(s):.1f} s for {duration_s} s" for duration_s, s in sorted(by_length.items())]
    guided = "guided" if rendered.guided else "without guidance"
    return f"{rendered.steps} steps {guided}; sampling a clip on one core, median: {', '.join(said) or 'none'}."


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.judge", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"text prompts (default {CLIPS})")
    parser.add_argument("--seed", type=int, default=SEED, help="of prompts, wordings and noise")
    parser.add_argument(
        "--groups", type=int, default=1, help="clips rendered side by side; times are those of one alone"
    )
    parser.add_argument("--weights", type=Path, default=BUILTIN, help="a folder; default: the repository's")
    parser.add_argument("--out", type=Path, help="keeps the clips here")
    given, words = parser.parse_known_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="judge-") as temporary:
        folder = given.out or Path(temporary)
        parallel = (ONE_CORE[0], f"parallel.groups={given.groups}")
        judge = Judge(
            folder=folder,
            num_clips=given.clips,
            seed=given.seed,
            weights=given.weights.resolve(),
            words=words,
            parallel=parallel,
        )
        sections, failed = [], False
        for name in given.only:
            section, is_failure = run(name, judge)
            print("\n".join(report.lines_of(section)), flush=True)
            sections.append(section)
            failed |= is_failure or bool(section.missed)
        failed |= not any(section.cells for section in sections)
        whole = given.only == list(GROUPS) and given.clips >= CLIPS and not words and judge.weights == BUILTIN
        found = describe(judge, sections, command=command(given, words))
        report.write(found, DOCS if whole else folder / "foal")
    return int(failed)


def run(name: str, judge: Judge) -> tuple[Section, bool]:
    """A group's section, and whether it could not be rendered. What is not built yet is no failure."""
    try:
        return GROUPS[name](judge), False
    except NotBuilt as error:
        return Section(title=name, words=f"{error}: not built yet, skipped"), False
    except RenderFailed as error:
        return Section(title=name, words=f"could not be rendered: {error}"), True


def command(given: argparse.Namespace, words: Sequence[str]) -> str:
    """What repeats this run anywhere: without the place of its clips."""
    options = {"only": " ".join(given.only), "clips": given.clips, "seed": given.seed, "groups": given.groups}
    usual = {"only": " ".join(GROUPS), "clips": CLIPS, "seed": SEED, "groups": 1}
    said = [f"--{name} {value}" for name, value in options.items() if value != usual[name]]
    return " ".join(["make judge", *([f'ARGS="{" ".join([*said, *words])}"'] if said or words else [])])


def describe(judge: Judge, sections: Sequence[Section], *, command: str) -> report.Report:
    return report.Report(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        command=command,
        seed=judge.seed,
        cpu=cpu_name(),
        versions={name: version(name) for name in ("torch", "ray", "imageio-ffmpeg")},
        weights_digest=weights_digest(
            LocalWeights(judge.weights), sorted(each.name for each in judge.weights.iterdir())
        ),
        sections=sections,
    )


if __name__ == "__main__":
    sys.exit(main())
