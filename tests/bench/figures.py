"""One measured figure, and how the bench prints it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    value: float
    unit: str
    goal: float | None = None  # at least this much; None: only reported
    is_limit: bool = False  # at most this much instead

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value <= self.goal if self.is_limit else self.value >= self.goal

    def values(self) -> dict[str, float | str | bool | None]:
        return {"value": round(self.value, 3), "unit": self.unit, "goal": self.goal, "met": self.met}


def show(section: str, figures: dict[str, Figure]) -> None:
    for name, figure in figures.items():
        goal = "" if figure.goal is None else f"   (goal {figure.goal:g})"
        print(f"{section}: {name}: {figure.value:.3g} {figure.unit}{goal}", flush=True)
        if figure.met is False:
            print(f"BELOW GOAL {section}: {name}: {figure.value:.3g}, wanted {figure.goal:g}", flush=True)
