"""Which crews a run has, which of them may be given work, and which are started again after a loss.

It counts losses by `policy` and starts, avoids and releases through the fleet; of clips it knows suspects only.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pipeline.fleet import Fleet, Gpu, Joined, Lost, Order, Ready
from pipeline.policy import Blocked, Streaks, Strikes
from pipeline.settings import RetrySettings
from pipeline.types import Stage

OTHERS: Mapping[Stage, Stage] = {"render": "enlarge", "enlarge": "render"}  # on places of the same kind
log = logging.getLogger(__name__)


@dataclass
class Member:
    """One crew. `resting`: started when there is work for it. `home`: ended, as its stage has nothing left to do.

    `gone`: not started again in this run.
    """

    stage: Stage
    state: Literal["starting", "ready", "resting", "home", "gone"] = "resting"
    order: Order | None = None
    nodes: tuple[str, ...] = ()  # ids, since it was ready last
    gpus: tuple[Gpu, ...] = ()


class Roster:
    def __init__(self, fleet: Fleet, *, retry: RetrySettings, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._streaks, self._strikes = Streaks(retry), Strikes(retry, clock=clock)
        self._avoided = Blocked()
        self._wait_for_place: set[Stage] = set()  # that others are to give up
        self.members = {crew_id: Member(stage) for crew_id, stage in fleet.crews().items()}

    def joined(self, event: Joined) -> None:
        self.members[event.crew_id] = Member(event.stage)

    def ready(self, event: Ready) -> None:
        member = self.members[event.crew_id]
        member.state, member.nodes, member.gpus = "ready", event.nodes, event.gpus
        self._wait_for_place.discard(member.stage)

    def worked(self, crew_id: str) -> None:
        """It answered: nothing is wrong with it, nor with its node and its cards."""
        member = self.members[crew_id]
        self._streaks.worked(crew_id)
        self._strikes.worked((*member.nodes, *member.gpus), member.stage)

    def counts(self) -> dict[Stage, int]:
        """Crews of each stage that work or will."""
        counts: dict[Stage, int] = dict.fromkeys(get_args(Stage), 0)
        for member in self.members.values():
            counts[member.stage] += member.state != "gone"
        return counts

    def ready_finishers(self) -> frozenset[str]:
        """Also those that have an order."""
        members = self.members.items()
        return frozenset(crew_id for crew_id, each in members if each.stage == "finish" and each.state == "ready")

    def idle(self) -> Iterator[tuple[str, Member]]:
        return ((crew_id, each) for crew_id, each in self.members.items() if each.state == "ready" and not each.order)

    def lost(self, event: Lost, suspect: object) -> bool:
        """Counts the loss. Whether the crew is worth starting again."""
        member = self.members[event.crew_id]
        member.state = "resting"
        if event.kind == "preempted":
            return self._streaks.evicted(event.crew_id)
        if event.kind == "unplaced" and self._of(member.stage, "ready"):
            return True
        if event.kind == "unplaced" and self._can_yield(member.stage):
            self._wait_for_place.add(member.stage)
            return True
        if event.node is not None:
            self._strikes.strike(event.node, member.stage, suspect, gpu=event.gpu)
        return self._streaks.lost(event.crew_id, suspect)

    def _of(self, stage: Stage | None, *states: str) -> list[str]:
        return [crew_id for crew_id, each in self.members.items() if each.stage == stage and each.state in states]

    def _can_yield(self, stage: Stage) -> bool:
        """Whether there are groups of the other kind that a stage without any can have the place of."""
        return len(self._of(OTHERS.get(stage), "ready", "starting", "resting")) > 1

    def _make_places(self, wanted: Mapping[Stage, int]) -> None:
        """Of a stage's first group, where those of the other kind have all that is left of a cluster."""
        for stage in [each for each in self._wait_for_place if wanted.get(each, 1)]:
            up, waiting = self._of(OTHERS[stage], "ready"), self._of(OTHERS[stage], "starting", "resting")
            for crew_id in waiting if up else waiting[1:]:  # they would have the next place that is free
                self.give_up(crew_id)
            idle = [crew_id for crew_id in up if not self.members[crew_id].order]
            if len(up) > 1 and not idle:
                continue  # the first that gets idle
            for crew_id in idle[-1:] if len(up) > 1 else ():
                log.warning("%s gives up its place: no %s group has one", crew_id, stage, extra={"group": crew_id})
                self.give_up(crew_id)
            self._wait_for_place.discard(stage)

    def fill(self, wanted: Mapping[Stage, int]) -> None:
        """Starts what rests, but no more crews of a stage than are wanted; of a stage that is not named, all."""
        self._make_places(wanted)
        up = Counter(each.stage for each in self.members.values() if each.state in ("starting", "ready"))
        for crew_id, member in self.members.items():
            if member.state == "resting" and up[member.stage] < wanted.get(member.stage, len(self.members)):
                up[member.stage] += 1
                self.start(crew_id)

    def start(self, crew_id: str) -> None:
        self.avoid_blocked()
        self.members[crew_id].state = "starting"
        self._fleet.start(crew_id)

    def give_up(self, crew_id: str) -> None:
        self.members[crew_id].state = "gone"
        self._fleet.give_up(crew_id)

    def rests(self, crew_id: str) -> bool:
        return crew_id in self.members and self.members[crew_id].state == "resting"

    def avoid_blocked(self) -> None:
        """Tells the fleet where nothing is to be started, when that has changed."""
        before, blocked = self._avoided, self._strikes.blocked()
        if blocked == before:
            return
        for place in sorted(_told(blocked) - _told(before)):
            log.warning("nothing more is started on %s: crews were lost there in a row", place)
        for place in sorted(_told(before) - _told(blocked)):
            log.info("%s is used again", place)
        self._avoided = blocked
        self._fleet.avoid(*blocked)

    # Where there is nothing for a stage to do.

    def send_home(self, stage: Stage) -> None:
        """Gives the places of its idle crews back."""
        for crew_id, member in [each for each in self.idle() if each[1].stage == stage]:
            log.info("%s has nothing left to do and gives its memory back", crew_id)
            self._fleet.release(crew_id)
            member.state = "home"

    def are_home(self, stage: Stage) -> bool:
        return any(each.state == "home" for each in self.members.values() if each.stage == stage)

    def call_back(self, stage: Stage) -> None:
        for member in self.members.values():
            if member.stage == stage and member.state == "home":
                member.state = "resting"

    def rest(self) -> None:
        """Gives the places of idle crews back to the cluster."""
        for crew_id, member in list(self.idle()):
            self._fleet.release(crew_id)
            member.state = "resting"


def _told(blocked: Blocked) -> set[str]:
    return {f"node {node[:8]}" for node in blocked.nodes} | set(map(str, blocked.gpus))
