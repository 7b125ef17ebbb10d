"""How a cluster's groups are shared out between the stages of clips, where each stage has groups of its own. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping

from model.config import ModelConfig
from model.cost import stage_costs
from model.placing import Placing
from pipeline.settings import ParallelSettings
from pipeline.types import Clip, Stage

TEXT_TOKENS = 100  # of a prompt: a thousandth of a clip's tokens more or less


def enlarging_share(model: ModelConfig, clips: Iterable[Clip], *, placing: Placing) -> float:
    """Super-resolution's part of the work that clips are, 0 to 1; 0 where no group is to do it alone."""
    if placing.stages != "apart":
        return 0.0
    first = second = 0
    for (shape, steps), count in Counter((clip.shape, clip.steps) for clip in clips).items():
        costs = stage_costs(model, shape, steps=steps, text_tokens=TEXT_TOKENS, negative_tokens=TEXT_TOKENS)
        first += count * costs[0].flops
        second += count * sum(each.flops for each in costs[1:])
    return second / (first + second) if second else 0.0


def shared_out(total: int, parallel: ParallelSettings, *, enlarging: float) -> Mapping[Stage, int]:
    """Groups of each stage, where there is room for `total`: as asked for, else so that both end at the same time.

    At least one of each that has something to do: its placement says what is missing. `enlarging`: super-resolution's
    share of the work.
    """
    first, second = parallel.groups, parallel.enlarging_groups
    if not enlarging:
        return {"render": first or max(total, 1)}
    if first is None and second is None:
        second = min(
            range(1, max(total, 2)), key=lambda count: max((1 - enlarging) / max(total - count, 1), enlarging / count)
        )
    if second is None:
        second = max(total - (first or 0), 1)
    return {"render": first or max(total - second, 1), "enlarge": second}
