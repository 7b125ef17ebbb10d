"""A group's size where nobody says it: that which its weights are cut for, else the smallest whose cards hold it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from model.config import ModelConfig
from model.memory import CARDS_GB, smallest_fitting_tp
from model.parallel import check_tp_size
from model.parts import tp_of
from model.placing import RESIDENT, Placing
from model.shapes import ClipShape
from model.weights import WeightReader
from pipeline.errors import ConfigError
from pipeline.planning.cards import ACCELERATOR, CARDS, no_fp8
from pipeline.settings import ParallelSettings


def settle_before(parallel: ParallelSettings, reader: WeightReader, *, model: ModelConfig) -> ParallelSettings:
    """Before there is a cluster: weights that are cut decide. ConfigError for a size that cannot cut the model."""
    cut_for = tp_of(reader)
    if parallel.tp is None and cut_for > 1:
        parallel = replace(parallel, tp=cut_for)
    try:
        for config in model.transformers.values():
            check_tp_size(config, parallel.tp or 1)
    except ValueError as error:
        raise ConfigError(f"parallel.tp: {error}") from error
    return parallel


def settle(
    parallel: ParallelSettings,
    *,
    model: ModelConfig,
    shapes: Collection[ClipShape],
    device: str,
    nodes: Sequence[Mapping[str, float]],
    placing: Placing = RESIDENT,
) -> ParallelSettings:
    """On the cluster at hand, for the clips to be rendered. ConfigError where no size fits or the card is not known."""
    if model.fp8 and device == "cuda":
        _check_fp8(nodes)
    if parallel.tp is not None:
        return parallel
    if device == "cpu":
        return replace(parallel, tp=1)
    with_cards = [node for node in nodes if node.get("GPU", 0) >= 1]
    if not with_cards:
        raise ConfigError("parallel.tp: no node with a card is there yet; say parallel=tp1, tp2, tp4 or tp8")
    card_gb = min(map(_card_gb, with_cards))
    tp = smallest_fitting_tp(model, card_bytes=card_gb * 10**9, shapes=shapes, placing=placing)
    if tp is None:
        raise ConfigError(
            f"parallel.tp: no size fits {model.name} on cards of {card_gb} GB with placing.stages={placing.stages}; "
            f"`happyhorse plan` shows what it needs on cards of {', '.join(map(str, CARDS_GB))} GB, and which placing"
        )
    return replace(parallel, tp=tp)


def _check_fp8(nodes: Sequence[Mapping[str, float]]) -> None:
    """What Ray calls unknown is looked at by the rank that gets it."""
    without = {name for card in CARDS.values() if not card.fp8 for name in card.names}
    found = sorted({kind for node in nodes if node.get("GPU", 0) >= 1 for kind in _kinds(node)} & without)
    if found:
        raise ConfigError(no_fp8(" and ".join(found)))


def _kinds(node: Mapping[str, float]) -> list[str]:
    return [name.removeprefix(ACCELERATOR) for name in node if name.startswith(ACCELERATOR)]


def _card_gb(node: Mapping[str, float]) -> int:
    kinds = _kinds(node)
    known = [card.gb for card in CARDS.values() if set(card.names) & set(kinds)]
    if not known:
        raise ConfigError(
            f"parallel.tp: the memory of {' and '.join(kinds) or 'these cards'} is not known; say parallel=tp1, tp2, "
            "tp4 or tp8"
        )
    return min(known)
