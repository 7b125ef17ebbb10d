"""A render or enlarging group in Ray: how it works on a clip, and whether it is well. How its ranks come together is
`ranks`'.
"""

from functools import partial
from typing import Any

from ray.exceptions import RayError

from pipeline.crews.crew import Call, Ref, Site, light
from pipeline.crews.deadlines import StepTimes, overdue
from pipeline.crews.losses import is_about, reason_of
from pipeline.crews.pulse import SILENT_S, Pulse
from pipeline.crews.ranks import Ranks
from pipeline.fleet import CONDITIONS_LOST, LATENTS_LOST, OUT_OF_MEMORY, EnlargeOrder, Event, Order, RenderOrder
from pipeline.rank_worker import Broken
from pipeline.settings import ParallelSettings
from pipeline.types import Clip, ClipFailure, GroupStatus, Stage
from pipeline.worker import Verdict


class RenderGroup(Ranks):
    def __init__(self, crew_id: str, *, site: Site, parallel: ParallelSettings, times: StepTimes, stage: Stage) -> None:
        """`times`: of all groups of its kind."""
        super().__init__(crew_id, site=site, parallel=parallel, stage=stage)
        self.times = times
        self.clip: Clip | None = None
        self.draft: Ref = None  # that it enlarges
        self.steps = range(0)  # of the clip's, that are its own
        self.num_clips = 0
        self.pulse = Pulse(clock=self.clock, period_s=self.cluster.health_period_s)
        self._verdicts: dict[int, Verdict | Broken] = {}
        self._apart_s: float | None = None  # since when a rank is not where the others are, though none is known dead
        self._known: set[object] = set()  # shapes that these processes have rendered: nothing has to be compiled

    # One clip.

    def offer(self, order: Order) -> None:
        assert isinstance(order, RenderOrder | EnlargeOrder)
        self.state, self.clip, self.busy = "busy", order.clip, True
        self.draft = order.draft if isinstance(order, EnlargeOrder) else None
        self.steps = self._steps_of(order)
        self._verdicts.clear()
        self.pulse.offered()
        for rank, actor in self.actors.items():
            verdict, result = _asked(actor, order)
            self.calls[verdict] = Call(rank, partial(self._one_answered, rank))
            if rank == 0:
                self.result = result

    def _steps_of(self, order: RenderOrder | EnlargeOrder) -> range:
        first, large = order.clip.steps, self.place.model.super_resolution
        if large is None or order.clip.shape.first_latent is None or (isinstance(order, RenderOrder) and order.drafts):
            return range(first)
        return range(first if isinstance(order, EnlargeOrder) else 0, first + large.sampling.steps)

    def _one_answered(self, rank: int, verdict: Verdict | Broken) -> Event | None:
        self._verdicts[rank] = verdict
        if isinstance(verdict, Broken):
            self._apart_s = self.clock.now  # who died will be said at once
        if _lacks_memory(verdict) and self._apart_s is None:
            self._apart_s = self.clock.now  # the others stand at the same place, or wait for this one for ever
        verdicts = [each for each in self._verdicts.values() if not isinstance(each, Broken)]
        if len(verdicts) < len(self.actors):
            return None
        failures = [each for each in verdicts if isinstance(each, ClipFailure)]
        if failures and len(failures) < len(verdicts):
            return self.lose(f"one rank alone refused the clip: {failures[0].message}")
        if not failures and self.clip is not None:
            self._rendered(self.clip, seconds=verdict)
        return self.answered(verdicts[0])

    def _rendered(self, clip: Clip, *, seconds: Any) -> None:
        self.num_clips += 1
        self._known.add(clip.shape)
        self.times.measured(clip, steps=self.steps, seconds=seconds)

    def answered(self, verdict: Verdict) -> Event:
        self.state, self.clip, self.draft, self._apart_s = "ready", None, None, None
        return super().answered(verdict)

    def inputs_lost(self, rank: int, error: RayError) -> Event | None:
        """Of one rank. The others may be in a collective already, and would wait for it for ever."""
        self._apart_s = self.clock.now
        kind = LATENTS_LOST if self.draft is not None and is_about(error, self.draft) else CONDITIONS_LOST
        failure = ClipFailure(stage=self.stage, kind=kind, message=reason_of(error), retriable=True)
        return self._one_answered(rank, failure)

    # Whether it is well.

    def refs(self) -> list[Ref]:
        return [*self.calls, *self.pulse.asked]

    def poll(self) -> None:
        if self.is_up() and len(self.seats) == self.parallel.ranks:
            self.pulse.ask(self.actors)

    def collect(self, ref: Ref) -> Event | None:
        rank = self.pulse.asked.get(ref)
        if rank is None:
            return super().collect(ref)
        try:
            self.pulse.answered(ref)
        except RayError as error:
            return self.broke(rank, error)
        return None

    def check(self) -> Event | None:
        if self.state != "busy" or self.clip is None:
            return super().check()
        if self._apart_s is not None and self.clock.now - self._apart_s > SILENT_S:
            return self._fell_apart()
        order_s, step_s = self.pulse.waited()
        step = self.steps.start + self.pulse.step_of(self.clip.clip_id)
        known = self.clip.shape in self._known
        limit_s = self.times.limit_s(self.clip, step=step) if known else self.cluster.step_timeout_s
        status = self.status()
        at = f"step {status.step} of {status.num_steps}"
        reason = overdue(order_s=order_s, step_s=step_s, limit_s=limit_s, at=at, settings=self.cluster)
        return self.hung(reason) if reason else None

    def _fell_apart(self) -> Event:
        lost = [each.message for each in self._verdicts.values() if isinstance(each, ClipFailure)]
        if any(map(_lacks_memory, self._verdicts.values())):
            return self.lose(f"not all of its ranks ran out of memory, but one did: {lost[0]}")
        if lost:
            return self.lose(f"one rank alone did not get what the clip is made of: {lost[0]}", kind="preempted")
        broken = [each.message for each in self._verdicts.values() if isinstance(each, Broken)]
        return self.lose(f"its ranks lost each other: {broken[0]}")

    def culprits(self) -> list[int]:
        unseated = [rank for rank in self.actors if rank not in self.seats]
        return sorted({*unseated, *self.pulse.silent()})

    def blame(self, culprits: list[int]) -> str:
        silent = ", ".join(f"{self.told(rank)} does not answer" for rank in culprits)
        return silent or "all ranks answer, so they wait for each other"

    def status(self) -> GroupStatus:
        clip = self.clip
        health = self.pulse.healths.get(0) if clip is not None else None
        current = health if health is not None and clip is not None and health.clip_id == clip.clip_id else None
        return GroupStatus(
            group_id=self.crew_id,
            state=self.state,
            clip_id=clip.clip_id if clip else None,
            step=current.step if current else 0,
            num_steps=current.num_steps if current else len(self.steps) if clip else 0,
            num_clips=self.num_clips,
            nodes=tuple(dict.fromkeys(seat.address for seat in self.seats.values())),
        )

    # How it ends.

    def told(self, rank: int) -> str:
        return f"rank {rank} {super().told(rank)}"

    def forget(self) -> None:
        super().forget()
        self.pulse.forget()
        self._verdicts.clear()
        self._known.clear()
        self.clip, self.draft, self._apart_s = None, None, None


def _asked(actor: Any, order: RenderOrder | EnlargeOrder) -> list[Ref]:
    """Verdict and result."""
    clip = light(order.clip)
    if isinstance(order, EnlargeOrder):
        return list(actor.enlarge.options(num_returns=2).remote(clip, order.draft, **order.conditions))
    make = actor.draft if order.drafts else actor.render
    return list(make.options(num_returns=2).remote(clip, **order.conditions))


def _lacks_memory(verdict: object) -> bool:
    return isinstance(verdict, ClipFailure) and verdict.kind == OUT_OF_MEMORY
