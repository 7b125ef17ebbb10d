"""What a nightly is asked to do, as plain frozen values. A bad value is a ConfigError."""

from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.nightly.windows import Window
from pipeline.planning.target import Target
from pipeline.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class NightlySettings:
    """`render`: what each manifest is rendered with; manifest and output are put in its place."""

    inbox: str
    output: str
    window: Window
    render: RunSettings
    target: Target = field(default_factory=Target)
    split: Literal["long", "any"] = "long"  # which manifests may start without ending: see agenda.py
    budget: float | None = None  # GPU-hours of a night
    must_finish_by: str | None = None
    forever: bool = False
    early_s: float = 300.0  # whoever starts us so long before the window opens waits for it
    poll_s: float = 60.0  # between two looks at the inbox or the clock
    settle_s: float = 10.0  # a file on disk that was written more recently may not be whole yet
    retry_after_s: float = 600.0  # before what the environment stopped is tried again
    failed_threshold: int | None = 10  # clips of a manifest; None: no notice
    budget_threshold: float | None = 0.9  # of the budget; None: no notice

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 0:
            raise ConfigError(f"budget is {self.budget:g}, expected 0 or more GPU-hours")
        for name in ("early_s", "settle_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name):g}, expected 0 or more")
        for name in ("poll_s", "retry_after_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name):g}, expected more than 0")
        if self.failed_threshold is not None and self.failed_threshold < 1:
            raise ConfigError(f"failed_threshold is {self.failed_threshold}, expected at least 1")
        if self.budget_threshold is not None and not 0 < self.budget_threshold <= 1:
            raise ConfigError(f"budget_threshold is {self.budget_threshold:g}, expected more than 0 and at most 1")
