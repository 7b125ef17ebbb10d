"""When a clip counts as hung, from what clips took so far; and a clock that stands still while nobody looks. Pure."""

from collections import deque
from statistics import median

from pipeline.settings import ClusterSettings
from pipeline.types import Clip

KEPT = 500  # measurements; older ones are of another time
ENOUGH = 3  # for a median that means something


class StepTimes:
    """What denoising takes in a run, in groups of one kind, by its cost in tokens."""

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self._per_token: deque[float] = deque(maxlen=KEPT)

    def measured(self, clip: Clip, *, steps: range, seconds: float) -> None:
        tokens = sum(step_tokens(clip, step=step) for step in steps)
        self._per_token.append(seconds / tokens)

    def limit_s(self, clip: Clip, *, step: int) -> float:
        """After which the step after `step` others is hung; step_timeout_s at most, and while little is known."""
        most = self._settings.step_timeout_s
        if len(self._per_token) < ENOUGH:
            return most
        usual = median(self._per_token) * step_tokens(clip, step=step)
        return min(max(self._settings.step_least_s, self._settings.step_slack * usual), most)


def step_tokens(clip: Clip, *, step: int) -> int:
    """What the step after `step` others goes through the Transformer with."""
    shape = clip.shape
    enlarges = shape.first_latent is not None and step >= clip.steps
    return shape.num_tokens if enlarges else shape.num_first_tokens


def overdue(*, order_s: float, step_s: float, limit_s: float, at: str, settings: ClusterSettings) -> str | None:
    """Why a busy group counts as hung: `order_s` since its clip was offered, `step_s` since its last step or offer."""
    if step_s > limit_s:
        known = f"{limit_s:.3g} s is what cluster.step_slack and step_least_s allow after the steps of this run"
        said = known if limit_s < settings.step_timeout_s else f"cluster.step_timeout_s is {limit_s:g}"
        return f"no step for {step_s:.0f} s after {at} ({said})"
    if order_s > settings.clip_timeout_s:
        return f"not done after {order_s:.0f} s, at {at} (cluster.clip_timeout_s is {settings.clip_timeout_s:g})"
    return None


class Attention:
    """Seconds for which somebody has looked: a driver that waited for storage has seen nothing, so nothing is late."""

    def __init__(self) -> None:
        self.now = 0.0

    def looked(self, seconds: float, *, at_most: float) -> None:
        """More than `at_most` is not looking, but a machine that stood still."""
        self.now += min(seconds, at_most)
