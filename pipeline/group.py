"""A render group in Ray: ranks in one placement group, one rendezvous, one fate. Built anew after any loss.

placed -> rank 0 binds a store -> all ranks join, load and warm up -> ready -> busy -> ready; lost from anywhere.
"""

import time
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipeline.crew import GET_S, Crew, Ref, light, reason_of
from pipeline.fleet import Event, Order, RenderOrder
from pipeline.policy import overdue
from pipeline.settings import ClusterSettings, ParallelSettings
from pipeline.types import Clip, ClipFailure, GroupStatus, Stage
from pipeline.worker import Health, RankWorker, Verdict, Workplace

GroupState: TypeAlias = Literal["starting", "ready", "busy", "lost"]
SILENT_S = 3.0  # a rank that has not answered `health` for so long is the culprit of a hang, not its victim


class RenderGroup(Crew):
    stage: Stage = "render"

    def __init__(self, crew_id: str, *, place: Workplace, cluster: ClusterSettings, parallel: ParallelSettings) -> None:
        super().__init__(crew_id, place=place, cluster=cluster)
        self.parallel = parallel
        self._bundle = {"CPU": float(parallel.threads_per_rank)} | ({"GPU": 1.0} if place.device == "cuda" else {})
        self.state: GroupState = "lost"
        self.clip: Clip | None = None
        self.healths: dict[int, Health] = {}  # the last answer of each rank
        self._placement: PlacementGroup | None = None
        self._verdicts: list[Verdict] = []
        self._asked: dict[Ref, int] = {}  # ranks that owe an answer to `health`
        self._asked_s: dict[int, float] = {}  # when each was asked last
        self._offered_s = self._stepped_s = 0.0

    # From nothing to ready.

    def start(self) -> None:
        self._placement = placement_group([self._bundle] * self.parallel.ranks, strategy=self.cluster.placement)
        self.state = "starting"
        self.actors = [self._create(rank) for rank in range(self.parallel.ranks)]
        self.calls[self.actors[0].bind.remote()] = self._bound
        self.wait_for("placing its ranks", self.cluster.placement_timeout_s)

    def _create(self, rank: int) -> Any:
        assert self._placement is not None
        strategy = PlacementGroupSchedulingStrategy(placement_group=self._placement, placement_group_bundle_index=rank)
        remote: Any = ray.remote  # its types know no concurrency groups
        kind = remote(concurrency_groups={"health": 1})(RankWorker)
        options = {"num_cpus": self._bundle["CPU"], "num_gpus": self._bundle.get("GPU", 0)}
        return kind.options(
            **options,
            scheduling_strategy=strategy,
            max_restarts=0,
            max_task_retries=0,
        ).remote(
            self.place,
            rank=rank,
            world_size=self.parallel.ranks,
            collective_timeout_s=self.cluster.collective_timeout_s,
        )

    def _bound(self, address: tuple[str, int]) -> None:
        """A store of this incarnation alone: no rank of an earlier one can come back into it."""
        for actor in self.actors:
            self.calls[actor.start.remote(*address)] = self._one_began
        self.wait_for("loading and warming up", self.cluster.load_timeout_s)

    def _one_began(self, _answer: None) -> Event | None:
        if self.calls:
            return None
        self.state = "ready"
        return self.began()

    # One clip.

    def offer(self, order: Order) -> None:
        assert isinstance(order, RenderOrder)
        self.state, self.clip, self._verdicts = "busy", order.clip, []
        self._offered_s = self._stepped_s = time.monotonic()
        for rank, actor in enumerate(self.actors):
            verdict, result = actor.render.options(num_returns=2).remote(light(order.clip), **order.conditions)
            self.calls[verdict] = self._one_answered
            if rank == 0:
                self.result = result

    def _one_answered(self, verdict: Verdict) -> Event | None:
        self._verdicts.append(verdict)
        if len(self._verdicts) < len(self.actors):
            return None
        failures = [each for each in self._verdicts if isinstance(each, ClipFailure)]
        if failures and len(failures) < len(self._verdicts):
            return self.lose(f"one rank alone refused the clip: {failures[0].message}")
        return self.answered(self._verdicts[0])

    def answered(self, verdict: Verdict) -> Event:
        self.state, self.clip = "ready", None
        return super().answered(verdict)

    # Whether it is well.

    def refs(self) -> list[Ref]:
        return [*self.calls, *self._asked]

    def poll(self) -> None:
        """Asks every rank that owes no answer how it is."""
        if self.state not in ("ready", "busy"):
            return
        now = time.monotonic()
        owing = set(self._asked.values())
        for rank, actor in enumerate(self.actors):
            if rank not in owing and now - self._asked_s.get(rank, 0.0) >= self.cluster.health_period_s:
                self._asked[actor.health.remote()] = rank
                self._asked_s[rank] = now

    def collect(self, ref: Ref) -> Event | None:
        rank = self._asked.pop(ref, None)
        if rank is None:
            return super().collect(ref)
        try:
            answer: Any = ray.get(ref, timeout=GET_S)
        except RayError as error:
            return self.lose(f"rank {rank}{self._where(rank)}: {reason_of(error)}")
        health: Health = answer
        before = self.healths.get(rank)
        self.healths[rank] = health
        if rank == 0 and before is not None and (before.clip_id, before.step) != (health.clip_id, health.step):
            self._stepped_s = time.monotonic()
        return None

    def check(self) -> Event | None:
        if self.state == "busy":
            now = time.monotonic()
            reason = overdue(
                order_s=now - self._offered_s,
                step_s=now - self._stepped_s,
                step=self._step(),
                settings=self.cluster,
            )
            return self.lose(f"{reason}; {self._culprits(now)}") if reason else None
        return super().check()

    def kill(self) -> None:
        super().kill()
        if self._placement is not None:
            remove_placement_group(self._placement)
        self._placement, self.clip, self.state = None, None, "lost"
        self._asked.clear()
        self._asked_s.clear()
        self.healths.clear()

    def late(self, what: str) -> str:
        """The bounded wait for a place says what was wanted and what was there."""
        if self._placement is None or placement_group_table(self._placement).get("state") == "CREATED":
            return what
        wanted = f"{self.parallel.ranks} x {_resources(self._bundle)}"
        where = " on one node" if self.cluster.placement == "STRICT_PACK" else ""
        there = _resources(ray.cluster_resources())  # type: ignore[no-untyped-call]
        free = _resources(ray.available_resources())  # type: ignore[no-untyped-call]
        return f"{what}: there is no room for {wanted}{where}; the cluster has {there}, free are {free}"

    def status(self) -> GroupStatus:
        health = self.healths.get(0)
        clip = self.clip
        current = health is not None and clip is not None and health.clip_id == clip.clip_id
        return GroupStatus(
            group_id=self.crew_id,
            state=self.state,
            clip_id=clip.clip_id if clip else None,
            step=health.step if health and current else 0,
            num_steps=clip.steps if clip else 0,
            nodes=tuple(dict.fromkeys(each.node for each in self.healths.values())),
        )

    def _step(self) -> str:
        status = self.status()
        return f"step {status.step} of {status.num_steps}"

    def _culprits(self, now: float) -> str:
        silent = sorted(rank for rank in self._asked.values() if now - self._asked_s[rank] > SILENT_S)
        if not silent:
            return "all ranks answer, so they wait for each other"
        return ", ".join(f"rank {rank}{self._where(rank)} does not answer" for rank in silent)

    def _where(self, rank: int) -> str:
        health = self.healths.get(rank)
        return f" on {health.node}" if health else ""


def _resources(have: Mapping[str, float]) -> str:
    return ", ".join(f"{have.get(name, 0):g} {name}" for name in ("CPU", "GPU") if name in have) or "nothing"
