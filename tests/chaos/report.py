"""What a storm did and how the run took it: on the terminal, and as a page."""

import os
import platform
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from tests.chaos.faults import Hit
from tests.chaos.rendering import STEP_S
from tests.chaos.schedule import COUNTS, STORAGE, Kind
from tests.chaos.storm import FAULT_LIMIT_S, Outcome

# Three times what is set, for each the time until the driver says that it is lost.
BOUNDS_S: dict[Kind, float] = {
    **dict.fromkeys(("kill_rank", "kill_finisher", "kill_ffmpeg", "kill_encoder"), 10.0),
    "stop_rank": 2 * STEP_S,
    "kill_node": 20,
    "stop_node": 20,
}
HEADER = ("fault", "injected", "survived", "detected after, s", "recovered after, s")


def show(outcome: Outcome, *, seed: int, page: Path | None) -> None:
    lines = list(_lines(outcome, seed=seed))
    print(*lines, sep="\n")
    if page is not None:
        page.write_text("\n".join([*_head(outcome, seed=seed), "", *lines, ""]))


def late(outcome: Outcome) -> list[str]:
    """Faults that were noticed later than they may be. A driver that waits for storage notices nothing meanwhile."""
    found = []
    for hit in outcome.hits:
        bound_s = BOUNDS_S.get(hit.fault.kind, float("inf")) + _waited_s(hit, outcome.hits)
        if hit.detect_s is not None and hit.detect_s > bound_s:
            what = f"{hit.fault} ({hit.what}) noticed after {hit.detect_s:.1f} s"
            found.append(f"{what}, expected {bound_s:.3g} s at most")
    return found


def _waited_s(hit: Hit, hits: Iterable[Hit]) -> float:
    """For how long something was wrong with storage between a fault and its notice."""
    spans = sorted(
        (max(each.at_s, hit.at_s), min(each.recovered_s or hit.detected_s, hit.detected_s))
        for each in hits
        if each.fault.kind in STORAGE and each.at_s is not None and hit.at_s is not None and hit.detected_s is not None
    )
    waited_s, until_s = 0.0, float("-inf")
    for begin_s, end_s in spans:
        waited_s += max(0.0, end_s - max(begin_s, until_s))
        until_s = max(until_s, end_s)
    return waited_s


def _head(outcome: Outcome, *, seed: int) -> Iterator[str]:
    yield "# A run in a storm"
    yield ""
    yield "`make chaos` renders on several Ray nodes of one machine while ranks, finishers, encoders, nodes, the driver"
    yield "and storage fail as a seed says. It ends well with exit code 1 for the poisonous clip alone, an audit with 0"
    yield "findings, all of Ray's resources back, and no actor, placement group or process left."
    yield ""
    yield f"{datetime.now(UTC):%Y-%m-%d}, `make chaos seed={seed} clips={outcome.num_clips}`,"
    yield f"{os.cpu_count()} cores ({platform.machine()}), shared with other work."


def _lines(outcome: Outcome, *, seed: int) -> Iterator[str]:
    yield f"{outcome.num_clips} clips, {len(outcome.hits)} faults, {outcome.seconds:.0f} s, seed {seed}."
    if outcome.num_stops:
        yield f"Storage stopped the run {outcome.num_stops} times (exit 5); the same command went on."
    yield ""
    yield _row(HEADER)
    yield _row("---" for _ in HEADER)
    for kind in COUNTS:
        hits = [hit for hit in outcome.hits if hit.fault.kind == kind]
        if hits:
            survived = sum(hit.recovered_s is not None for hit in hits)
            detected, recovered = _spread(hits, "detect_s"), _spread(hits, "recover_s")
            yield _row((kind.replace("_", " "), len(hits), survived, detected, recovered))
    yield ""
    yield "Times are minimum, median and maximum, from the moment of the fault: detected when the driver says so,"
    yield "recovered when every crew that was hit works again, or its clip is done (ffmpeg), or the next one (driver,"
    yield "storage)."
    bounds = ", ".join(f"{kind.replace('_', ' ')} {bound_s:g} s" for kind, bound_s in BOUNDS_S.items())
    yield f"The storm fails where more is needed to detect ({bounds})"
    yield f"or to recover ({FAULT_LIMIT_S:g} s). Time in which storage is away does not count: the driver waits for it."


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _spread(hits: list[Hit], name: str) -> str:
    seconds = [value for hit in hits if (value := getattr(hit, name)) is not None]
    return " / ".join(f"{each:.1f}" for each in (min(seconds), median(seconds), max(seconds))) if seconds else "-"
