"""What earlier runs measured, pooled by kind of clip, and carried over to kinds that no run has seen. Pure."""

import math
from collections.abc import Mapping, Sequence

from model.shapes import ClipShape, clip_shape
from pipeline.planning.history import STAGES, Kind, RunHistory
from pipeline.planning.planned import ClipFlops, PlannedClips, PlannedKind
from pipeline.shares import TEXT_TOKENS, share_of
from pipeline.types import Stage

BITS_A_PIXEL = 0.1  # of H.264 at the default quality, until a run was measured; assumed
WAV_BYTES = 4  # a moment of stereo sound
AAC_BYTES_S = 24_000
POSTER_BYTES_A_PIXEL = 0.1


class Measured:
    """`runs` on the hardware that is planned for."""

    def __init__(self, planned: PlannedClips, runs: Sequence[RunHistory]) -> None:
        self._planned, self._runs = planned, runs
        self.kinds: dict[Kind, dict[str, float]] = {}  # kind -> count, mean bytes, mean seconds by stage
        self._shapes: dict[Kind, ClipShape] = {}
        for run in runs:
            self._pool(run)

    def _pool(self, run: RunHistory) -> None:
        model = self._planned.model
        for times in run.kinds:
            kind = times.kind
            if kind.ratio not in model.sizes.get(kind.resolution, {}):
                continue  # of another size table
            self._shapes[kind] = clip_shape(
                model, resolution=kind.resolution, ratio=kind.ratio, duration_s=kind.duration_s
            )
            sums = self.kinds.setdefault(kind, dict.fromkeys(("count", "bytes", *STAGES), 0.0))
            new = {"bytes": times.num_bytes, **times.seconds}
            total = sums["count"] + times.count
            for name, value in new.items():
                sums[name] += (value - sums[name]) * times.count / total
            sums["count"] = total

    @property
    def is_complete(self) -> bool:
        """Whether every kind to render was measured itself."""
        return all(each.kind in self.kinds for each in self._planned.left)

    @property
    def fewest(self) -> int:
        """Clips measured of the kind that was measured least."""
        return min((int(self.kinds.get(each.kind, {}).get("count", 0)) for each in self._planned.left), default=0)

    def seconds(self, each: PlannedKind) -> dict[str, float]:
        """Of one clip by stage, measured or carried over from the nearest kind: the Transformer's by FLOPs, the rest's
        by pixels.
        """
        near = self._nearest(each)
        if near == each.kind:
            return {stage: self.kinds[near][stage] for stage in STAGES}
        flops = self._flops(each.kind, each.shape) / self._flops(near, self._shapes[near])
        pixels = _pixels(each.shape) / _pixels(self._shapes[near])
        factors = {"condition": 1.0, "render": flops, "decode": pixels, "encode": pixels, "upload": pixels}
        seconds = {stage: self.kinds[near][stage] * factor for stage, factor in factors.items()}
        seconds["enlarge"] = 0.0
        if any(run.stages == "apart" for run in self._runs):  # both stages as fast as they were together
            groups_s = seconds["render"] + self.kinds[near]["enlarge"] * flops
            enlarging = share_of([(1, self._costs(each.kind, each.shape).stages)])
            seconds |= {"render": groups_s * (1 - enlarging), "enlarge": groups_s * enlarging}
        return seconds

    def totals(self) -> dict[str, float]:
        """Of all clips to render, by stage, whoever shares the work."""
        sums = dict.fromkeys(STAGES, 0.0)
        for each in self._planned.left:
            for stage, seconds in self.seconds(each).items():
                sums[stage] += seconds * each.to_render
        return sums

    def ratio(self, *, groups: Mapping[Stage, int]) -> float:
        """What earlier runs took of the sum of their stages, where these share the cores. Whole runs are preferred."""
        whole = [run for run in self._runs if not run.stopped and not run.num_failed] or self._runs
        sums = [
            sum(crew_seconds(_run_totals(run), groups=groups, encoders=run.encoders, finishers=run.finishers).values())
            for run in whole
        ]
        return sum(run.driving_s for run in whole) / sum(sums) if sum(sums) else 1.0

    def num_bytes(self, each: PlannedKind) -> float:
        """Of one clip's files."""
        if self.kinds:
            near = self._nearest(each)
            return self.kinds[near]["bytes"] * _pixels(each.shape) / _pixels(self._shapes[near])
        shape, duration_s = each.shape, each.kind.duration_s
        sound = (shape.num_samples * WAV_BYTES + duration_s * AAC_BYTES_S) * each.with_sound / max(each.to_render, 1)
        return _pixels(shape) * BITS_A_PIXEL / 8 + sound + shape.height * shape.width * POSTER_BYTES_A_PIXEL

    def notes(self) -> list[str]:
        scaled = [each for each in self._planned.left if each.kind not in self.kinds]
        count = sum(each.to_render for each in scaled)
        said = [f"measured in {len(self._runs)} earlier run{'s' if len(self._runs) > 1 else ''} of this output"]
        if not scaled:
            return said
        clips = f"{count} clips are of kinds" if count > 1 else "1 clip is of a kind"
        return [*said, f"{clips} that no run measured: scaled by FLOPs and pixels"]

    def _nearest(self, each: PlannedKind) -> Kind:
        if each.kind in self.kinds:
            return each.kind
        wanted = self._flops(each.kind, each.shape)
        return min(self.kinds, key=lambda kind: abs(math.log(self._flops(kind, self._shapes[kind]) / wanted)))

    def _flops(self, kind: Kind, shape: ClipShape) -> int:
        return self._costs(kind, shape).denoise

    def _costs(self, kind: Kind, shape: ClipShape) -> ClipFlops:
        return self._planned.kind_flops(kind, shape, text_tokens=TEXT_TOKENS)


def crew_seconds(
    totals: Mapping[str, float], *, groups: Mapping[Stage, int], encoders: int, finishers: int
) -> dict[Stage, float]:
    """How long each stage's crews work side by side."""
    finish = totals["decode"] + totals["encode"] + totals["upload"]
    return {
        "encode": totals["condition"] / encoders,
        **{stage: totals[stage] / count for stage, count in groups.items()},
        "finish": finish / finishers,
    }


def _run_totals(run: RunHistory) -> dict[str, float]:
    return {stage: sum(each.count * each.seconds.get(stage, 0.0) for each in run.kinds) for stage in STAGES}


def _pixels(shape: ClipShape) -> int:
    return shape.num_frames * shape.height * shape.width
