"""What a run says of itself: snapshots while it lasts, a summary at the end. Plain values and their arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.types import GroupStatus

SUCCESS, SOME_FAILED, BAD_INPUT, STOPPED, HELD, ENVIRONMENT = 0, 1, 2, 3, 4, 5  # exit codes


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One moment of a run. Costs are tokens through the Transformer, so that long clips weigh more."""

    num_clips: int  # to be rendered in this run
    num_succeeded: int
    num_failed: int
    in_flight: tuple[str, ...]  # clips that render, wait for a finisher or are being finished
    cost: int  # of all clips of this run
    cost_done: float  # of those that have left the groups, and of the steps that the others have behind them
    working_s: float  # since the first group was ready; 0 before
    elapsed_s: float
    groups: tuple[GroupStatus, ...]
    stopping: str | None = None  # why nothing new is started
    paused: str | None = None  # who asked for that, while it lasts

    @property
    def clips_per_hour(self) -> float | None:
        """None before the first clip is finished."""
        if not self.num_succeeded or self.working_s <= 0:
            return None
        return self.num_succeeded * 3600 / self.working_s

    @property
    def eta_s(self) -> float | None:
        """None until a hundredth of the work, or a clip, is done: before that it would be a guess."""
        known = self.cost_done >= self.cost / 100 or self.num_succeeded
        if not known or self.cost_done <= 0 or self.working_s <= 0:
            return None
        return max(self.cost - self.cost_done, 0) * self.working_s / self.cost_done


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """How a run ended."""

    exit_code: int
    num_clips: int  # rows of the manifest
    num_done_before: int  # recorded by earlier runs
    num_rendered: int  # recorded by this one
    failed: Mapping[str, str]  # clip_id -> reason, in manifest order
    num_pending: int
    seconds: float
    clips_per_hour: float | None = None
    stopped: str | None = None  # why work was left
    canceled: bool = False  # because somebody asked for that
