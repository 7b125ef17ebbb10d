"""How a cluster's groups are shared out between the stages of clips, where each stage has groups of its own. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from model.config import ModelConfig
from model.cost import StageCost, stage_costs
from model.placing import Placing
from pipeline.errors import ConfigError
from pipeline.settings import ParallelSettings
from pipeline.types import Clip, Stage

TEXT_TOKENS = 100  # of a prompt: a thousandth of a clip's tokens more or less


def enlarging_share(model: ModelConfig, clips: Iterable[Clip], *, placing: Placing) -> float:
    """Super-resolution's part of the work that clips are, 0 to 1; 0 where no group is to do it alone."""
    kinds = Counter((clip.shape, clip.steps) for clip in clips) if placing.stages == "apart" else {}
    texts = {"text_tokens": TEXT_TOKENS, "negative_tokens": TEXT_TOKENS}
    return share_of((count, stage_costs(model, shape, steps=steps, **texts)) for (shape, steps), count in kinds.items())


def share_of(costs: Iterable[tuple[int, Sequence[StageCost]]]) -> float:
    """The same of so many clips of each cost, if groups are to do it alone."""
    first = second = 0
    for count, stages in costs:
        first += count * stages[0].flops
        second += count * sum(each.flops for each in stages[1:])
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
        ways = [_kinds(total - count, count) for count in range(1, max(total, 2))]
        return max(ways, key=lambda groups: pace(groups, enlarging=enlarging))
    if second is None:
        second = total - (first or 0)
    return _kinds(total - second if first is None else first, second)


def check_room(groups: Mapping[Stage, int], total: int) -> None:
    """ConfigError where one kind of two would have the places of the other, and both wait for ever."""
    if len(groups) > 1 and sum(groups.values()) > total:
        raise ConfigError(
            f"parallel.groups is {groups['render']} and parallel.enlarging_groups {groups['enlarge']}, "
            f"expected at most {total} in all, which is what the cluster has room for"
        )


def pace(groups: Mapping[Stage, int], *, enlarging: float) -> float:
    """As fast as so many groups that do everything: the kind that takes longer decides."""
    first, second = groups["render"], groups.get("enlarge", 0)
    return 1 / max((1 - enlarging) / first, enlarging / second if second else 0.0)


def _kinds(first: int, second: int) -> Mapping[Stage, int]:
    return {"render": max(first, 1), "enlarge": max(second, 1)}
