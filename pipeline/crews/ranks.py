"""How the ranks of a group come together, and again after one of them died.

placed -> all load -> rank 0 binds a store -> they meet and warm up. Where one rank of a group at work dies on a node
that lives, the others leave their collective and keep their weights, and the next start puts a new rank in its place.
After any other loss, and where that does not work, all is built anew.
"""

from dataclasses import replace
from typing import Any, Literal, TypeAlias

import ray
from ray.exceptions import ActorDiedError, RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipeline.crews.crew import LOADING, Crew, Site
from pipeline.crews.placements import is_there, no_room, place
from pipeline.fleet import Event
from pipeline.rank_worker import Broken, RankWorker
from pipeline.room import Crews
from pipeline.settings import ParallelSettings
from pipeline.types import Stage
from pipeline.worker import Seat

GroupState: TypeAlias = Literal["starting", "ready", "busy", "lost"]


class Ranks(Crew):
    def __init__(self, crew_id: str, *, site: Site, parallel: ParallelSettings, stage: Stage) -> None:
        super().__init__(crew_id, site=site)
        self.stage = stage
        self.parallel = parallel
        self.together = self.cluster.placement == "STRICT_PACK"
        self.bundle = {"CPU": float(parallel.threads_per_rank)} | ({"GPU": 1.0} if self.place.device == "cuda" else {})
        self.state: GroupState = "lost"
        self._placement: PlacementGroup | None = None
        self._missing: list[int] = []  # ranks that died while the others live on
        self._leaving = False  # whether those others have yet to leave what it broke

    # From nothing to ready.

    def start(self) -> None:
        if not self._missing or self._is_kept_off():
            self._build()
            return
        self.state = "starting"
        self.actors |= {rank: self._create(rank) for rank in self._missing}
        if not self._leaving:
            self._place(self._missing)

    def _build(self) -> None:
        self.kill()
        self.state = "starting"
        ranks = list(range(self.parallel.ranks))
        self._placement = place(
            self.site.names.of(self.crew_id),
            self.bundle,
            len(ranks),
            packing=self.cluster.placement,
            off=self._off(),
        )
        self.actors = {rank: self._create(rank) for rank in ranks}
        self._place(ranks)

    def _create(self, rank: int) -> Any:
        assert self._placement is not None
        strategy = PlacementGroupSchedulingStrategy(placement_group=self._placement, placement_group_bundle_index=rank)
        remote: Any = ray.remote  # its types know no concurrency groups
        kind = remote(concurrency_groups={"health": 1})(RankWorker)
        options = {"num_cpus": self.bundle["CPU"], "num_gpus": self.bundle.get("GPU", 0)}
        return kind.options(
            **options,
            scheduling_strategy=strategy,
            max_restarts=0,
            max_task_retries=0,
        ).remote(self.place, rank=rank, world_size=self.parallel.ranks, cluster=self.cluster, stage=self.stage)

    def _place(self, ranks: list[int]) -> None:
        self.wait_for("placing its ranks", self.cluster.placement_timeout_s)
        self.ask({rank: self.actors[rank].where.remote() for rank in ranks}, self._placed)

    def _placed(self, seats: dict[int, Seat]) -> None:
        self.seats |= seats
        self.wait_for(LOADING, self.cluster.load_timeout_s)
        self.ask({rank: actor.load.remote() for rank, actor in self.actors.items()}, self._loaded)

    def _loaded(self, _answers: dict[int, None]) -> None:
        self.ask({0: self.actors[0].bind.remote()}, self._bound)

    def _bound(self, bound: dict[int, tuple[str, int]]) -> None:
        """A store of this incarnation alone: no rank of an earlier one can come back into it."""
        self.ask({rank: actor.join.remote(*bound[0]) for rank, actor in self.actors.items()}, self._joined)

    def _joined(self, answers: dict[int, Broken | None]) -> Event:
        broken = [answer.message for answer in answers.values() if answer is not None]
        if broken:
            return self.lose(f"its ranks could not reach each other: {broken[0]}")
        self.state, self._missing = "ready", []
        return self.began()

    def _off(self) -> frozenset[str]:
        return self.site.watch.off(self.bundle, self.parallel.ranks, together=self.together)

    def _is_kept_off(self) -> bool:
        """Whether it must not stay where it is."""
        stays = self.site.watch.nodes.alive.keys() - self._off()
        return any(seat.node not in stays for seat in self.seats.values())

    # How it ends, and what is kept of it.

    def is_up(self) -> bool:
        return self.state != "lost"

    def wants(self) -> Crews:
        return replace(super().wants(), actors=self.parallel.ranks, together=self.together)

    def is_unplaced(self) -> bool:
        return self._placement is not None and not is_there(self._placement)

    def room(self) -> str:
        return no_room(self.bundle, self.parallel.ranks, together=self.together)

    def check(self) -> Event | None:
        if self._missing and (self._leaving or self.state == "lost"):
            if self.is_late():
                self._give_up_others()
            return None
        return super().check()

    def broke(self, rank: int, error: RayError) -> Event | None:
        if self._leaving and rank not in self._missing:
            self._give_up_others()
            return None
        lost = self.judged(rank, error)
        alone = len(self.actors) == 1
        if isinstance(error, ActorDiedError) and lost.kind == "died" and self.state in ("ready", "busy") and not alone:
            self._keep_others(rank)
        else:
            self.kill()
        return lost

    def _keep_others(self, dead: int) -> None:
        """Tells them to leave: they hear it as soon as their broken collective lets go of them."""
        others = {rank: actor for rank, actor in self.actors.items() if rank != dead}
        self.forget()
        self.actors, self.state = others, "lost"
        self.seats.pop(dead, None)
        self._missing, self._leaving = [dead], True
        self.ask({rank: actor.leave.remote() for rank, actor in others.items()}, self._left)
        self.wait_for("leaving what a dead rank broke", self.cluster.leave_timeout_s)

    def _left(self, _answers: dict[int, Broken]) -> None:
        self._leaving = False
        if self.state == "starting":
            self._place(self._missing)
        else:  # nobody needs them for ever
            self.wait_for("waiting for a new rank", self.cluster.leave_timeout_s)

    def _give_up_others(self) -> None:
        """Not another loss: what was lost is built anew, at once or when it is started."""
        if self.state == "starting":
            self._build()
        else:
            self.kill()

    def kill(self) -> None:
        super().kill()
        if self._placement is not None:
            remove_placement_group(self._placement)
        self._placement, self.state = None, "lost"
        self._missing, self._leaving = [], False
