"""Where weights lie while they are not at work, so that models run on cards that do not hold them whole, and where
what stands around the stages works: settings.

Swapped weights are copied to the card for as long as a stage works; offloaded ones come layer by layer; apart, each
stage has groups of its own. The numbers are the same everywhere. `model/offloading.py` does what is done in a rank.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from model.config import ModelConfig

StagePlace: TypeAlias = Literal["resident", "swapped", "apart", "offloaded", "disk"]
TextPlace: TypeAlias = Literal["cpu", "cards", "offloaded", "disk"]
DecodePlace: TypeAlias = Literal["cpu", "card"]
GB = 10**9


@dataclass(frozen=True, kw_only=True)
class Placing:
    """Of a rank's stages, the text encoder and the decoders. Settings, for free memory decides nothing here."""

    stages: StagePlace = "resident"
    stages_gb: float = 0.0  # on a card at most, of weights that are offloaded: the rest comes layer by layer
    text: TextPlace = "cpu"
    text_cards: int = 1  # that an encoder is spread over, where it is on cards
    text_gb: float = 0.0  # of each of them; 0: as accelerate finds them
    decode: DecodePlace = "cpu"  # of a finisher's decoders

    def __post_init__(self) -> None:
        if min(self.stages_gb, self.text_gb) < 0:
            raise ValueError(f"stages_gb is {self.stages_gb} and text_gb {self.text_gb}, expected 0 or more")
        if self.text_cards < 1:
            raise ValueError(f"text_cards is {self.text_cards}, expected at least 1")

    @property
    def encoder_cards(self) -> int:
        """Of one encoder, in a cluster with cards."""
        return {"cpu": 0, "disk": 0, "offloaded": 1, "cards": self.text_cards}[self.text]

    @property
    def finisher_cards(self) -> int:
        """Of one finisher, in a cluster with cards."""
        return {"cpu": 0, "card": 1}[self.decode]


RESIDENT = Placing()


def check_placing(model: ModelConfig, placing: Placing) -> None:
    """Raises ValueError for what a model's stages cannot do."""
    if placing.stages == "apart" and model.super_resolution is None:
        raise ValueError(f"stages is apart, but model {model.name} has one stage, expected a model of two stages")


def stage_places(model: ModelConfig) -> tuple[StagePlace, ...]:
    """Those that take different amounts of memory, the most first; to disk is as offloaded."""
    two: tuple[StagePlace, ...] = ("swapped", "apart") if model.super_resolution is not None else ()
    return ("resident", *two, "offloaded")
