"""Crews of one actor each: prompt encoders and finishers."""

from typing import Any

import ray

from pipeline.crews.crew import LOADING, Call, Crew, Ref, Site, light
from pipeline.crews.nodes import node_of, selector
from pipeline.crews.placements import no_room
from pipeline.finisher import Finisher
from pipeline.fleet import Done, EncodeOrder, Event, FinishOrder, Order
from pipeline.prompt_encoder import PromptEncoder
from pipeline.types import ClipFailure, Finished, Stage
from pipeline.worker import Seat


class SoloCrew(Crew):
    """One actor on one CPU, and cards if it needs some, that Ray never restarts by itself."""

    kind: type[Any]
    _asked: Ref = None  # whether the idle process is there: the last time, and when that was
    _asked_s = 0.0

    def __init__(self, crew_id: str, *, site: Site) -> None:
        super().__init__(crew_id, site=site)
        cards = self.cards()
        self.bundle = {"CPU": 1.0} | ({"GPU": float(cards)} if cards else {})

    def cards(self) -> int:
        return 0

    def start(self) -> None:
        self.kill()  # where it is replaced in the same turn in which its node went
        off = self.site.watch.off(self.bundle)
        options = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0, "label_selector": selector(off)}
        options["num_gpus"] = self.bundle.get("GPU", 0)
        self.actors = {0: ray.remote(self.kind).options(**options).remote(self.place)}
        self.ask({0: self.actors[0].where.remote()}, self._seated)
        self.wait_for("placing its process", self.cluster.placement_timeout_s)

    def _seated(self, seats: dict[int, Seat]) -> None:
        self.seats = dict(seats)
        self.ask({0: self.actors[0].start.remote()}, lambda _: self.began())
        self.wait_for(LOADING, self.cluster.load_timeout_s)

    def poll(self) -> None:
        """An idle process that dies or freezes would be found out with its next order only."""
        idle = bool(self.seats) and not self.calls
        if idle and self.clock.now - self._asked_s >= self.cluster.health_period_s:
            self._asked_s = self.clock.now
            self._asked = self.actors[0].where.remote()
            self.calls[self._asked] = Call(0, lambda seat: None)

    def check(self) -> Event | None:
        """It answers that before its next order, so an order gives it no more time for it."""
        limit_s = self.cluster.step_least_s
        if self._asked in self.calls and self.clock.now - self._asked_s > limit_s:
            return self.hung(f"no answer for {limit_s:g} s, when it had no order")
        return super().check()

    def is_unplaced(self) -> bool:
        return node_of(self.actors[0]) is None

    def room(self) -> str:
        return no_room(self.bundle, 1, together=True)


class EncoderCrew(SoloCrew):
    stage: Stage = "encode"
    kind = PromptEncoder

    def cards(self) -> int:
        return self.place.placing.encoder_cards if self.place.device == "cuda" else 0

    def offer(self, order: Order) -> None:
        assert isinstance(order, EncodeOrder)
        count = len(order.conditions)
        verdict, *made = self.actors[0].encode.options(num_returns=1 + count).remote(order.conditions)
        self.result = tuple(made)
        self.calls[verdict] = Call(0, self.answered)
        self.busy = True
        loads = self.cluster.load_timeout_s if self.cluster.keep_embeddings else 0  # it loads when it has to embed
        self.wait_for("encoding", loads + count * self.cluster.encode_timeout_s)


class FinisherCrew(SoloCrew):
    stage: Stage = "finish"
    kind = Finisher

    def cards(self) -> int:
        return self.place.placing.finisher_cards if self.place.device == "cuda" else 0

    def offer(self, order: Order) -> None:
        assert isinstance(order, FinishOrder)
        answer = self.actors[0].finish.remote(light(order.clip, keeps_sound=True), order.attempt, order.latents)
        self.calls[answer] = Call(0, self._finished)
        self.busy = True
        self.wait_for("finishing", self.cluster.finish_timeout_s)

    def _finished(self, answer: Finished | ClipFailure) -> Event:
        if isinstance(answer, ClipFailure):
            return self.answered(answer)
        self.busy = False
        self.wait_for("", 0.0)
        return Done(crew_id=self.crew_id, result=answer, seconds=sum(answer.seconds.values()))
