"""What a run wants of a cluster, and what a cluster has room for: devices, and how many groups. Pure.

Run, plan, nightly and Kubernetes all count by `Wants`: crews of fixed numbers, and groups for what is left beside them.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from model.placing import RESIDENT, Placing
from pipeline.counting import counted
from pipeline.errors import ConfigError
from pipeline.settings import ClusterSettings, ParallelSettings

Nodes: TypeAlias = Sequence[Mapping[str, float]]  # what each has of CPU and GPU


@dataclass(frozen=True)
class Free:
    """What is left on a node."""

    cpus: int
    cards: int


@dataclass(frozen=True, kw_only=True)
class Crews:
    """Of one kind: how many, of how many actors each, and what every actor wants."""

    kind: str  # of one, in words
    count: int = 1
    actors: int = 1
    cpus: int = 1
    cards: int = 0
    together: bool = True  # whether the actors of one have to be on one node
    setting: str = ""  # what asks for so many cards

    @property
    def all_cards(self) -> int:
        return self.count * self.actors * self.cards

    @property
    def largest(self) -> int:
        """Cards that one node has to have."""
        return self.cards * (self.actors if self.together else 1)

    def __str__(self) -> str:
        name = f"{self.count} {self.kind}{'s' if self.count > 1 else ''}"
        return f"{name} of {f'{self.actors} x ' if self.actors > 1 else ''}{_size(self.cpus, self.cards)}"

    def parts(self) -> list[Free]:
        """What each of them takes from one node, for all of them."""
        whole = Free(self.cpus * self.actors, self.cards * self.actors)
        each = Free(self.cpus, self.cards)
        return [whole] * self.count if self.together else [each] * (self.count * self.actors)

    def actors_on(self, free: Free) -> int:
        """How many a node has room for; of those whose crews are together, such as make whole crews."""
        most = free.cpus // self.cpus
        if self.cards:
            most = min(most, free.cards // self.cards)
        return most - most % self.actors if self.together else most


@dataclass(frozen=True, kw_only=True)
class Wants:
    """All that a run starts. `groups`: how each is; how many is the question, unless it was said."""

    beside: tuple[Crews, ...]
    groups: Crews

    @property
    def cards_beside(self) -> int:
        return sum(each.all_cards for each in self.beside)

    def cards(self, groups: int) -> dict[str, int]:
        """How many cards so many groups and what is beside them have, by kind of crew that has any."""
        kinds = (replace(self.groups, count=groups), *self.beside)
        return {each.kind: each.all_cards for each in kinds if each.all_cards}

    def groups_on(self, cards: int, *, least: int = 1) -> int:
        """How many groups so many cards are enough for, wherever these are. ConfigError for less than `least`."""
        one = self.groups.actors * self.groups.cards
        if cards < self.cards_beside + least * one:
            asked = [f"{kind} {count}" for kind, count in self.cards(least).items()]
            if least > 1:
                asked[0] = f"{least} groups of {counted(one, 'GPU')}, one for each stage"
            needed = self.cards_beside + least * one
            raise ConfigError(f"gpus is {cards}, expected at least {needed} ({', '.join(asked)})")
        return (cards - self.cards_beside) // one

    def room(self, nodes: Nodes) -> int:
        """How many groups nodes hold beside the rest; 0 also where they do not hold that."""
        left = [Free(math.floor(node.get("CPU", 0)), math.floor(node.get("GPU", 0))) for node in nodes]
        parts = [part for each in self.beside for part in each.parts()]
        for part in sorted(parts, key=lambda part: (-part.cards, -part.cpus)):
            chosen = self._cheapest(left, part)
            if chosen is None:
                return 0
            left[chosen] = _less(left[chosen], part)
        return sum(map(self.groups.actors_on, left)) // self.groups.actors

    def _cheapest(self, left: Sequence[Free], part: Free) -> int | None:
        """The node where it costs groups least, of those the one with least to spare. None: nowhere."""
        costs = {}
        for number, free in enumerate(left):
            after = _less(free, part)
            if min(after.cards, after.cpus) >= 0:
                lost = self.groups.actors_on(free) - self.groups.actors_on(after)
                costs[number] = (lost, after.cards, after.cpus)
        return min(costs, key=lambda number: costs[number], default=None)

    def check(self, nodes: Nodes, *, node: str = "node", least: int = 1) -> int:
        """`room`, or ConfigError for what would wait for ever: what no node holds, or less left than `least` groups.

        `node`: what one is called, and what decides how many cards it has.
        """
        largest = max((math.floor(each.get("GPU", 0)) for each in nodes), default=0)
        for crews in (*self.beside, self.groups):
            if crews.count and crews.largest > largest:
                raise ConfigError(
                    f"{crews.setting}: one {crews.kind} wants {crews.largest} GPUs of one {node}, expected at most "
                    f"{largest}, which is all that one has"
                )
        count = self.room(nodes)
        if count < least:
            beside = ", ".join(str(each) for each in self.beside if each.count)
            raise ConfigError(
                f"no room for {replace(self.groups, count=least)} beside {beside}: there is {_told(nodes)}"
            )
        return count


def wanted(parallel: ParallelSettings, cluster: ClusterSettings, *, device: str, placing: Placing = RESIDENT) -> Wants:
    """What a run of these settings starts on `device`."""
    return crews_wanted(
        ranks=parallel.ranks,
        threads=parallel.threads_per_rank,
        encoders=cluster.num_encoders,
        finishers=cluster.num_finishers,
        together=cluster.placement == "STRICT_PACK",
        on_cards=device == "cuda",
        placing=placing,
    )


def crews_wanted(
    *,
    ranks: int,
    encoders: int,
    finishers: int,
    placing: Placing,
    threads: int = 1,
    together: bool = True,
    on_cards: bool = True,
) -> Wants:
    """The one place that says which crews there are, and what cards each has."""
    cards = int(on_cards)
    text = "placing.text_cards" if placing.text == "cards" else "placing.text"
    return Wants(
        beside=(
            Crews(kind="encoder", count=encoders, cards=cards * placing.encoder_cards, setting=text),
            Crews(kind="finisher", count=finishers, cards=cards * placing.finisher_cards, setting="placing.decode"),
        ),
        groups=Crews(kind="group", actors=ranks, cpus=threads, cards=cards, together=together, setting="parallel.tp"),
    )


def all_fit(crews: Sequence[Crews], nodes: Nodes) -> bool:
    """Whether nodes hold all of these together."""
    return not crews or Wants(beside=tuple(crews[:-1]), groups=crews[-1]).room(nodes) >= crews[-1].count


def choose_device(settings: ClusterSettings, nodes: Nodes) -> str:
    """cpu or cuda. ConfigError where cards are asked for and there are none."""
    has_gpus = any(node.get("GPU", 0) >= 1 for node in nodes) or (settings.grows and settings.device == "cuda")
    if settings.device == "cuda" and not has_gpus:
        raise ConfigError("cluster.device is cuda, but no node of the cluster has a GPU")
    return "cuda" if has_gpus and settings.device != "cpu" else "cpu"


def count_groups(
    parallel: ParallelSettings,
    cluster: ClusterSettings,
    *,
    device: str,
    nodes: Nodes,
    placing: Placing = RESIDENT,
    least: int = 1,
) -> int:
    """As many as were asked for, or as the nodes hold. At least one: on CPUs its placement says what is missing.

    ConfigError where there are cards and never room for `least`, unless more nodes are to come.
    """
    wants = wanted(parallel, cluster, device=device, placing=placing)
    count = wants.room(nodes) if device == "cpu" or cluster.grows else wants.check(nodes, least=least)
    return parallel.groups or max(count, 1)


def _less(free: Free, part: Free) -> Free:
    return Free(free.cpus - part.cpus, free.cards - part.cards)


def _told(nodes: Nodes) -> str:
    alike = Counter((math.floor(node.get("CPU", 0)), math.floor(node.get("GPU", 0))) for node in nodes)
    return ", ".join(f"{count} node{'s' if count > 1 else ''} of {_size(*has)}" for has, count in alike.items())


def _size(cpus: int, cards: int) -> str:
    return f"{cpus} CPU" + (f" and {cards} GPU" if cards else "")
