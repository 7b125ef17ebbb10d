"""What a plan is for: cards, how many, and how a run uses them; and which earlier runs tell of such a one. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from model.config import ModelConfig
from model.parallel import check_tp_size
from model.placing import RESIDENT, Placing
from pipeline.errors import ConfigError
from pipeline.planning.cards import CARDS, unknown_card
from pipeline.planning.history import RunHistory
from pipeline.room import Wants, crews_wanted


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the plan is for; None: as the output's last run was, or else what is stated."""

    card: str | None = None
    gpus: int | None = None  # of all crews together
    tp: int | None = None
    utilisation: float = 0.4  # of the card's peak, until a run was measured
    price: float | None = None  # of a GPU-hour
    placing: Placing = RESIDENT
    encoders: int | None = None
    finishers: int | None = None

    def __post_init__(self) -> None:
        if self.card is not None:
            object.__setattr__(self, "card", self.card.lower())
        if self.card is not None and self.card not in CARDS:
            raise ConfigError(unknown_card(self.card))
        for name in ("gpus", "encoders", "finishers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}, expected at least 1")
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"utilisation is {self.utilisation}, expected more than 0 and at most 1")
        if self.price is not None and self.price < 0:
            raise ConfigError(f"price is {self.price}, expected 0 or more")

    def wants(self, *, ranks: int, newest: RunHistory | None = None) -> Wants:
        """What a run starts on cards. `newest`: one like it."""
        return crews_wanted(
            ranks=ranks,
            encoders=self.encoders or (newest.encoders if newest else 1),
            finishers=self.finishers or (newest.finishers if newest else 1),
            placing=self.placing,
        )


def check_target(model: ModelConfig, target: Target) -> None:
    """ConfigError for a group size that cannot cut the model."""
    if target.tp is None:
        return
    for part, config in model.transformers.items():
        try:
            check_tp_size(config, target.tp)
        except ValueError as error:
            raise ConfigError(f"tp: {error} ({part})") from error


def alike(history: Sequence[RunHistory], target: Target) -> list[RunHistory]:
    """Earlier runs that tell how long this one takes: on the hardware asked for, else on that of the last run."""
    runs = [run for run in history if run.lay_like(target.placing)]
    runs = [run for run in runs if target.card is None or has_card(run, target.card)]
    runs = [run for run in runs if target.tp in (None, run.tp)]
    if not runs:
        return []
    newest = runs[0]
    runs = [run for run in runs if run.hardware.is_like(newest.hardware) and run.tp == newest.tp]
    if newest.hardware.device == "cpu":  # who shares the cores matters
        runs = [run for run in runs if _on_cores(run) == _on_cores(newest)]
    return runs


def _on_cores(run: RunHistory) -> tuple[int, ...]:
    return run.groups, run.enlarging_groups, run.threads


def has_card(run: RunHistory, card: str) -> bool:
    return bool(set(CARDS[card].names) & set(run.hardware.cards))


def card_of(run: RunHistory) -> str | None:
    """The largest kind of that name: Ray's "A100" may be either."""
    named = [name for name in CARDS if has_card(run, name)]
    return max(named, key=lambda name: CARDS[name].gb, default=None)
