"""Whether a card is there and ours alone: memory in use before we load anything is somebody's, or a dead process's."""

import time
from collections.abc import Callable

WAIT_S = 20.0  # a killed process's memory is not free at once
LOOK_S = 0.5


class NoCard(RuntimeError):
    """Ray counts a card where torch sees none."""


class DirtyCard(RuntimeError):
    """It has less free memory than a card that nobody else uses."""


def check_card(
    look: Callable[[], tuple[int, int]],
    *,
    name: str,
    least_free: float,
    wait_s: float = WAIT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """`look` gives free and total bytes. Raises DirtyCard when less than that part is free for so long."""
    for _ in range(int(wait_s / LOOK_S)):
        free, total = look()
        if free >= least_free * total:
            return
        sleep(LOOK_S)
    free, total = look()
    if free < least_free * total:
        raise DirtyCard(
            f"{name} has {free / 1e9:.1f} of {total / 1e9:.1f} GB free before anything is loaded, expected at least "
            f"{least_free:.0%} (cluster.least_free_memory): another process has the rest, perhaps a dead one"
        )
