"""Plain values become dataclasses, or an error that names key, value and what was expected."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from jobs.typed import build
from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Wheel:
    spokes: int

    def __post_init__(self) -> None:
        if self.spokes < 3:
            raise ValueError(f"spokes is {self.spokes}, expected at least 3")


@dataclass(frozen=True, kw_only=True)
class Cart:
    name: str
    wheel: Wheel
    spare: Mapping[str, Wheel]
    loads: tuple[int, ...]
    colour: Literal["red", "blue"]
    speed: float
    driver: str | None
    closed: bool
    year: int = 2026


GOOD: dict[str, Any] = {
    "name": "hay",
    "wheel": {"spokes": 12},
    "spare": {"left": {"spokes": 8}},
    "loads": [1, 2],
    "colour": "red",
    "speed": 3,
    "driver": None,
    "closed": False,
}


def test_a_whole_table_becomes_a_dataclass() -> None:
    assert build(Cart, GOOD, at="cart") == Cart(
        name="hay",
        wheel=Wheel(spokes=12),
        spare={"left": Wheel(spokes=8)},
        loads=(1, 2),
        colour="red",
        speed=3.0,
        driver=None,
        closed=False,
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("name", 7, "cart.name: got 7, expected text"),
        ("name", None, "cart.name: got null, expected text"),
        ("loads", [1, "x"], 'cart.loads[1]: got "x", expected a whole number'),
        ("loads", 1, "cart.loads: got 1, expected a list"),
        ("colour", "green", 'cart.colour: got "green", expected one of red, blue'),
        ("speed", "fast", 'cart.speed: got "fast", expected a number'),
        ("speed", float("nan"), "cart.speed: got NaN, expected a number"),
        ("speed", True, "cart.speed: got true, expected a number"),
        ("year", True, "cart.year: got true, expected a whole number"),
        ("year", 1.5, "cart.year: got 1.5, expected a whole number"),
        ("closed", 0, "cart.closed: got 0, expected true or false"),
        ("driver", 3, "cart.driver: got 3, expected text or null"),
        ("wheel", 12, "cart.wheel: got 12, expected a table"),
        ("wheel", {"spokes": "many"}, 'cart.wheel.spokes: got "many", expected a whole number'),
        ("wheel", {"spokes": 2}, "cart.wheel: spokes is 2, expected at least 3"),
        ("wheel", {}, "cart.wheel.spokes is missing, expected a whole number"),
        (
            "spare",
            {"a": {"spokse": 8}},
            "unknown key cart.spare.a.spokse; the nearest known one is cart.spare.a.spokes",
        ),
    ],
)
def test_an_error_names_key_value_and_expectation(key: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Cart, GOOD | {key: value}, at="cart")
    assert str(caught.value) == said


def test_a_table_at_the_root_has_no_prefix() -> None:
    with pytest.raises(ConfigError, match=r"^spokes: got null"):
        build(Wheel, {"spokes": None}, at="")
