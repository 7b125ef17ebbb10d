"""The actor that is one rank of a group. It loads on its own, meets the others, and can meet others again.

A rank that cannot reach the others any more drops what it was doing, leaves the group and keeps its weights.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import ray

from model.shapes import ClipShape
from pipeline.card import NoCard, check_card
from pipeline.errors import GroupLost
from pipeline.fleet import OUT_OF_MEMORY
from pipeline.scratch import scratch_folder, sweep
from pipeline.settings import ClusterSettings
from pipeline.types import Clip, ClipFailure, Stage
from pipeline.worker import Seat, Verdict, Workplace, address, begin, failure, seat

if TYPE_CHECKING:
    import torch.distributed as dist
    from torch import Tensor

    from model.renderer import Renderer
    from model.request import Draft, Latents
    from model.weights import WeightReader

Made = TypeVar("Made")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Health:
    """One rank's answer while it may be deep in a collective. `step` 0 of 0: it has no clip."""

    seat: Seat
    clip_id: str | None
    step: int
    num_steps: int


@dataclass(frozen=True, kw_only=True)
class Broken:
    """This rank is well and has left its group, in which others could not be reached any more."""

    message: str


class RankWorker:
    """One rank of a group: its slices of the Transformers, and the same request as every other rank.

    `stage` is what its group serves: `enlarge`, or `render` with all stages or, where they are apart, the first alone.
    """

    def __init__(
        self, place: Workplace, *, rank: int, world_size: int, cluster: ClusterSettings, stage: Stage = "render"
    ) -> None:
        begin(place)
        self.stage = stage
        self.place, self.rank, self.world_size, self.cluster = place, rank, world_size, cluster
        self.timeout = timedelta(seconds=cluster.collective_timeout_s)
        self.renderer: Renderer | None = None
        self.store: Any = None  # a TCPStore, on rank 0
        self.at: tuple[str | None, int, int] = (None, 0, 0)  # clip, step, steps: replaced whole, read by `health`

    def where(self) -> Seat:
        return seat()

    def load(self) -> None:
        """This rank's slices; nothing where they are loaded already. Waits for nobody."""
        from pipeline.weights.opening import open_weights, weights_errors

        if self.renderer is not None:
            return
        began = time.monotonic()
        device = "cuda:0" if self.place.device == "cuda" else "cpu"  # Ray shows a rank its own card alone
        if self.place.device == "cuda":
            self._check_card()
        with weights_errors(self.place.weights):
            reader = open_weights(self.place.weights, self.place.storage)
            self.renderer = self._load(reader, device)
        log.info("rank %d of %d has loaded its weights in %.1f s", self.rank, self.world_size, time.monotonic() - began)

    def _load(self, reader: "WeightReader", device: str) -> "Renderer":
        """GroupLost where this card does not hold them; another node's may."""
        import torch

        from model.kernels import KernelsError
        from model.renderer import Renderer
        from pipeline.requests import smallest_shape, warm_up_request

        placing, folder = self.place.placing, None
        sweep()  # what killed ranks have left on this node: ours, too, ends by being killed
        if placing.stages == "disk":
            self.folder = scratch_folder()
            folder = Path(self.folder.name)
        try:
            renderer = Renderer.load(
                self.place.model,
                reader,
                tp=self.world_size,
                rank=self.rank,
                device=device,
                placing=placing,
                parts=self._parts(),
                folder=folder,
            )
            if self.place.model.compiled:  # before anybody waits for this rank in a collective
                renderer.make_kernels(warm_up_request(self.place.model))
            return renderer
        except KernelsError as error:
            raise GroupLost(str(error)) from None
        except torch.OutOfMemoryError as error:
            message = self._shortage(error, smallest_shape(self.place.model))
        raise GroupLost(f"loading, for the smallest clip: {message}")

    def _parts(self) -> list[str]:
        """The stages that are held here."""
        first, *second = self.place.model.transformers
        if self.place.placing.stages != "apart":
            return [first, *second]
        return second if self.stage == "enlarge" else [first]

    def _shortage(self, error: Exception, shape: ClipShape) -> str:
        import torch

        from pipeline.shortage import shortage

        return shortage(
            error,
            model=self.place.model,
            shape=shape,
            tp=self.world_size,
            placing=self.place.placing,
            parts=self._parts(),
            look=torch.cuda.mem_get_info if self.place.device == "cuda" else None,
        )

    def _check_card(self) -> None:
        import torch

        if not torch.cuda.is_available():
            wanted = "it takes torch for CUDA and a driver in the image that this node runs"
            raise NoCard(f"Ray counts a GPU on {seat()}, but torch {torch.__version__} sees none there: {wanted}")
        torch.cuda.set_device(0)
        check_card(torch.cuda.mem_get_info, name=str(seat()), least_free=self.cluster.least_free_memory)

    def bind(self) -> tuple[str, int]:
        """Rank 0 alone: a rendezvous on a port that nobody else can have any more. Host and port."""
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        host = address()
        self.store = TCPStore(host, 0, is_master=True, timeout=self.timeout, wait_for_workers=False)
        return host, int(self.store.port)

    def join(self, host: str, port: int) -> Broken | None:
        """Meets the others and makes the smallest there is, for a step. GroupLost where a card is too small."""
        import torch

        from model.parallel import GroupBroken
        from pipeline.requests import smallest_shape, warm_up_request

        assert self.renderer is not None
        if self.world_size > 1:
            self.renderer.join(self._meet(host, port))
        try:
            self.renderer.warm_up(warm_up_request(self.place.model))
        except GroupBroken as error:
            reason = str(error)
        except torch.OutOfMemoryError as error:
            raise GroupLost(self._shortage(error, smallest_shape(self.place.model))) from None
        else:
            return None
        return self.leave(reason)

    def _meet(self, host: str, port: int) -> "dist.ProcessGroup":
        import torch
        import torch.distributed as dist
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        if self.place.device == "cuda":
            torch.cuda.set_device(0)
        store = self.store or TCPStore(host, port, is_master=False, timeout=self.timeout, wait_for_workers=False)
        backend = "nccl" if self.place.device == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.world_size, timeout=self.timeout)
        world = dist.group.WORLD
        assert world is not None
        return world

    def leave(self, reason: str = "") -> Broken:
        """Lets go of those who wait for us in a collective. Not inside an `except`: its frames hold the group."""
        import torch.distributed as dist

        self.at = (None, 0, 0)
        if self.renderer is not None:
            self.renderer.join(None)
        if dist.is_initialized():
            dist.destroy_process_group()
        return Broken(message=reason)

    # An order, with conditions by role: rank 0's result; the other ranks' are the same and stay where they are.

    def render(self, clip: Clip, **conditions: "Tensor") -> tuple[Verdict | Broken, "Latents | None"]:
        return self._carry_out(clip, conditions, self._held().render)

    def draft(self, clip: Clip, **conditions: "Tensor") -> tuple[Verdict | Broken, "Draft | None"]:
        return self._carry_out(clip, conditions, self._held().draft)

    def enlarge(self, clip: Clip, draft: "Draft", **conditions: "Tensor") -> tuple[Verdict | Broken, "Latents | None"]:
        enlarge = self._held().enlarge
        return self._carry_out(clip, conditions, lambda asked, *, on_step: enlarge(asked, draft, on_step=on_step))

    def _held(self) -> "Renderer":
        assert self.renderer is not None
        return self.renderer

    def _carry_out(
        self, clip: Clip, conditions: Mapping[str, "Tensor"], make: Callable[..., Made]
    ) -> tuple[Verdict | Broken, Made | None]:
        """What the card does not hold is the clip's failure where every rank says so: they stand at the same place."""
        import torch

        from model.parallel import GroupBroken
        from pipeline.requests import request_of

        began = time.monotonic()
        request = request_of(clip, conditions)
        try:
            self._held().check(request)
        except ValueError as error:  # before any collective, on every rank alike
            return failure(self.stage, error, kind="ClipError"), None
        self.at = (clip.clip_id, 0, self._held().num_steps(request))
        refused: ClipFailure | None = None
        try:
            made = make(request, on_step=lambda done, total: self._note(clip.clip_id, done, total))
        except GroupBroken as error:
            reason = str(error)
        except torch.OutOfMemoryError as error:
            refused = failure(self.stage, MemoryError(self._shortage(error, clip.shape)), kind=OUT_OF_MEMORY)
        else:
            self.at = (None, 0, 0)
            return time.monotonic() - began, made if self.rank == 0 else None
        if refused is None:
            return self.leave(reason), None
        self.at = (None, 0, 0)
        if self.place.device == "cuda":
            torch.cuda.empty_cache()  # the error is gone, and its frames with what they held
        return refused, None

    def _note(self, clip_id: str, done: int, total: int) -> None:
        self.at = (clip_id, done, total)

    @ray.method(concurrency_group="health")
    def health(self) -> Health:
        clip_id, step, num_steps = self.at
        return Health(seat=seat(), clip_id=clip_id, step=step, num_steps=num_steps)
