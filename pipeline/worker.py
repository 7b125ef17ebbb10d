"""What all actors share: what they are told, where they are, and how an order's end becomes data.

`prompt_encoder` and `finisher` have those that work alone, `rank_worker` those that work together. Heavy imports happen
where they run, so that the driver and an idle process need none of them. Every answer about an order is data: what it
took in seconds, or a ClipFailure. What an actor raises costs it its life.
"""

import logging
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import ray

from model.config import ModelConfig
from model.placing import RESIDENT, Placing
from pipeline.errors import ClipError, GroupLost, StoreError, WeightsError
from pipeline.fleet import Gpu
from pipeline.inputs.access import OWN_FOLDER, InputAccess
from pipeline.scratch import DISK_FULL
from pipeline.store import StorageSettings
from pipeline.types import ClipFailure, MediaSettings, SoundRef, Stage

if TYPE_CHECKING:
    from torch import Tensor

Verdict: TypeAlias = float | ClipFailure  # seconds that it took, or why there is no result
Made = TypeVar("Made")
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """What every actor of a run is told once."""

    model: ModelConfig
    weights: str
    output: str
    storage: StorageSettings
    media: MediaSettings
    threads: int  # torch's, of each actor
    device: str  # of the ranks: cpu or cuda
    images: bool = True  # whether any clip has a first frame to encode
    sounds: bool = True  # whether any clip has a given sound to encode
    input_access: InputAccess = OWN_FOLDER  # to images and sounds; the manifest's own folders are among the roots
    keep_embeddings: bool = False  # in the output
    placing: Placing = RESIDENT
    run_id: str = ""  # part of the names of placement groups: leftovers of other runs are told by it


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where an actor is."""

    node: str  # Ray's id of it
    address: str
    pid: int
    gpus: tuple[str, ...] = ()  # their numbers there

    @property
    def cards(self) -> tuple[Gpu, ...]:
        return tuple(Gpu(node=self.node, number=number) for number in self.gpus)

    def __str__(self) -> str:
        gpus = "".join(f", GPU {number}" for number in self.gpus)
        return f"{self.address} (node {self.node[:8]}, process {self.pid}{gpus})"


def begin(place: Workplace) -> None:
    """What every actor's process needs first: its share of the cores, a log that Ray keeps in its session folder."""
    import torch

    torch.set_num_threads(place.threads)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    for name in ("pipeline", "model"):
        logging.getLogger(name).setLevel(logging.INFO)


def seat() -> Seat:
    """Of this process."""
    context = ray.get_runtime_context()
    gpus = tuple(map(str, context.get_accelerator_ids().get("GPU", [])))
    return Seat(node=context.get_node_id(), address=address(), pid=os.getpid(), gpus=gpus)


def address() -> str:
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def as_data(stage: Stage, make: Callable[[], Made]) -> Made | ClipFailure:
    """Carries out an order; whatever it raises becomes a ClipFailure, so that the actor lives on for the next one."""
    try:
        return make()
    except GroupLost:
        raise
    except (ClipError, StoreError, WeightsError) as error:
        return failure(stage, error, kind=type(error).__name__)
    except Exception as error:  # the worker's translation of anything into data
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return failure(stage, error, kind="StoreError")
        log.exception("%s failed oddly", stage)  # the whole story, in this process's log
        return ClipFailure(stage=stage, kind=type(error).__name__, message=_told(error), retriable=True)


def _told(error: Exception) -> str:
    """An unexpected error in one line: what, and where in the code."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno}, in {last.name})"


def failure(stage: Stage, error: Exception, *, kind: str) -> ClipFailure:
    return ClipFailure(stage=stage, kind=kind, message=str(error) or type(error).__name__, retriable=False)


def load_fitted(ref: SoundRef, place: Workplace, *, to_rate_hz: int, seconds: int) -> "Tensor":
    """A given sound as long as its clip, [channels, samples]."""
    import torch

    from model.sounds import fitted
    from pipeline.inputs.sounds import load_sound

    found = load_sound(ref, longest_s=seconds, storage=place.storage, access=place.input_access)
    waveform = torch.from_numpy(found.waveform)
    return fitted(waveform, rate_hz=found.rate_hz, to_rate_hz=to_rate_hz, seconds=seconds)
