"""The three actors. Heavy imports happen where they run, so that the driver and an idle process need none of them.

Every answer about an order is data: what it took in seconds, or a ClipFailure. What an actor raises costs it its life.
"""

import errno
import logging
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import ray

from model.config import ModelConfig
from pipeline.errors import ClipError, StoreError
from pipeline.fleet import Condition, Text
from pipeline.images.access import OWN_FOLDER, ImageAccess
from pipeline.publication import upload
from pipeline.store import StorageSettings, open_store
from pipeline.types import Clip, ClipFailure, Finished, MediaSettings, Stage

if TYPE_CHECKING:
    import torch.distributed as dist
    from torch import Tensor

    from model.renderer import Latents

Verdict: TypeAlias = float | ClipFailure  # seconds that it took, or why there is no result
Made = TypeVar("Made")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
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
    image_access: ImageAccess = OWN_FOLDER  # from where; the manifest's own folders are among the roots


@dataclass(frozen=True, kw_only=True)
class Health:
    """One rank's answer while it may be deep in a collective. `step` 0 of 0: it has no clip."""

    node: str
    pid: int
    clip_id: str | None
    step: int
    num_steps: int


class RankWorker:
    """One rank of a render group: its slices of the Transformer, and the same request as every other rank."""

    def __init__(self, place: Workplace, *, rank: int, world_size: int, collective_timeout_s: float) -> None:
        _begin(place)
        self.place, self.rank, self.world_size = place, rank, world_size
        self.timeout = timedelta(seconds=collective_timeout_s)
        self.store: Any = None  # a TCPStore, on rank 0
        self.at: tuple[str | None, int, int] = (None, 0, 0)  # clip, step, steps: replaced whole, read by `health`

    def bind(self) -> tuple[str, int]:
        """Rank 0 alone: a rendezvous on a port that nobody else can have any more. Host and port."""
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        host = _node()
        self.store = TCPStore(host, 0, is_master=True, timeout=self.timeout, wait_for_workers=False)
        return host, int(self.store.port)

    def start(self, host: str, port: int) -> None:
        """Joins the others, loads this rank's slices and renders the smallest clip there is, for one step."""
        from model.renderer import Renderer
        from pipeline.requests import warm_up_request
        from pipeline.weights.opening import open_weights, weights_errors

        group = self._join(host, port) if self.world_size > 1 else None
        device = "cuda:0" if self.place.device == "cuda" else "cpu"  # Ray shows a rank its own card alone
        with weights_errors(self.place.weights):
            reader = open_weights(self.place.weights, self.place.storage)
            self.renderer = Renderer.load(self.place.model, reader, group=group, device=device)
        self.renderer.render(warm_up_request(self.place.model))

    def _join(self, host: str, port: int) -> "dist.ProcessGroup":
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

    def render(self, clip: Clip, **conditions: "Tensor") -> tuple[Verdict, "Latents | None"]:
        """Rank 0's latents; the other ranks' are the same and stay where they are. Conditions by role."""
        from pipeline.requests import request_of

        began = time.monotonic()
        request = request_of(clip, conditions)
        try:
            self.renderer.check(request)
        except ValueError as error:  # before any collective, on every rank alike
            return _failure("render", error, kind="ClipError"), None
        self.at = (clip.clip_id, 0, self.renderer.num_steps(request))
        latents = self.renderer.render(request, on_step=lambda done, total: self._note(clip.clip_id, done, total))
        self.at = (None, 0, 0)
        return time.monotonic() - began, latents if self.rank == 0 else None

    def _note(self, clip_id: str, done: int, total: int) -> None:
        self.at = (clip_id, done, total)

    @ray.method(concurrency_group="health")
    def health(self) -> Health:
        clip_id, step, num_steps = self.at
        return Health(node=_node(), pid=os.getpid(), clip_id=clip_id, step=step, num_steps=num_steps)


class PromptEncoder:
    """Prompts to embeddings, first frames to latents, one at a time: none depends on its neighbours."""

    def __init__(self, place: Workplace) -> None:
        _begin(place)
        self.place = place

    def start(self) -> None:
        from model.codecs import build_image_encoder
        from model.text import build_text_encoder
        from pipeline.weights.opening import open_weights, weights_errors

        with weights_errors(self.place.weights):
            reader = open_weights(self.place.weights, self.place.storage)
            self.text = build_text_encoder(self.place.model, reader)
            self.images = build_image_encoder(self.place.model, reader) if self.place.images else None

    def encode(self, condition: Condition) -> tuple[Verdict, "Tensor | None"]:
        began = time.monotonic()
        made = _as_data("encode", lambda: self._encode(condition))
        return (made, None) if isinstance(made, ClipFailure) else (time.monotonic() - began, made)

    def _encode(self, condition: Condition) -> "Tensor":
        if isinstance(condition, Text):
            return self.text.encode([condition.prompt])[0]
        from model.images import prepare_image
        from pipeline.images.reading import load_image

        scale = self.place.model.spatial_scale
        data = load_image(condition.image, storage=self.place.storage, access=self.place.image_access)
        height, width = condition.latent_height * scale, condition.latent_width * scale
        try:
            pixels = prepare_image(data, height=height, width=width)
        except ValueError as error:
            raise ClipError(str(error)) from error
        assert self.images is not None  # a place without images gets no pictures
        return self.images.encode_image(pixels)


class Finisher:
    """Latents to delivered files: decoded by windows into ffmpeg, probed, uploaded under names of this attempt."""

    def __init__(self, place: Workplace) -> None:
        _begin(place)
        self.place = place
        self.store = open_store(place.output, place.storage)

    def start(self) -> None:
        from model.codecs import build_audio_decoder, build_video_decoder
        from pipeline.weights.opening import open_weights, weights_errors

        with weights_errors(self.place.weights):
            reader = open_weights(self.place.weights, self.place.storage)
            self.video = build_video_decoder(self.place.model, reader)
            self.audio = build_audio_decoder(self.place.model, reader)

    def finish(self, clip: Clip, attempt: str, latents: "Latents") -> Finished | ClipFailure:
        return _as_data("finish", lambda: self._finish(clip, attempt, latents))

    def _finish(self, clip: Clip, attempt: str, latents: "Latents") -> Finished:
        from pipeline.media import check_probe, encode_clip, probe_mp4

        began = time.monotonic()
        frames = _Timed(window.numpy() for window in self.video.decode(latents.video))
        waveform = self.audio.decode(latents.audio).numpy() if clip.audio else None
        decoded_sound = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="happyhorse-") as folder:
            files = encode_clip(
                frames,
                shape=clip.shape,
                waveform=waveform,
                folder=Path(folder),
                stem=f"{clip.clip_id}.{attempt}",
                settings=self.place.media,
            )
            probe = probe_mp4(files["mp4"])
            check_probe(probe, clip.shape, clip.audio)
            encoded = time.monotonic()
            uploaded = upload(self.store, files)
        decode_s = decoded_sound - began + frames.seconds
        seconds = {
            "decode": decode_s,
            "encode": encoded - began - decode_s,
            "upload": time.monotonic() - encoded,
        }
        return Finished(attempt=attempt, files=uploaded, probe=probe, seconds=seconds)


class _Timed(Iterator[Any]):
    """Counts the seconds that an iterator's consumer waits for it."""

    def __init__(self, source: Iterator[Any]) -> None:
        self._source = source
        self.seconds = 0.0

    def __next__(self) -> Any:
        began = time.monotonic()
        try:
            return next(self._source)
        finally:
            self.seconds += time.monotonic() - began


def _begin(place: Workplace) -> None:
    """What every actor's process needs first: its share of the cores, a log that Ray keeps in its session folder."""
    import torch

    torch.set_num_threads(place.threads)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    for name in ("pipeline", "model"):
        logging.getLogger(name).setLevel(logging.INFO)


def _node() -> str:
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def _as_data(stage: Stage, make: Callable[[], Made]) -> Made | ClipFailure:
    """Carries out an order; whatever it raises becomes a ClipFailure, so that the actor lives on for the next one."""
    try:
        return make()
    except (ClipError, StoreError) as error:
        return _failure(stage, error, kind=type(error).__name__)
    except Exception as error:  # the worker's translation of anything into data
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return _failure(stage, error, kind="StoreError")
        log.exception("%s failed oddly", stage)  # the whole story, in this process's log
        return ClipFailure(stage=stage, kind=type(error).__name__, message=_told(error), retriable=True)


def _told(error: Exception) -> str:
    """An unexpected error in one line: what, and where in the code."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno}, in {last.name})"


def _failure(stage: Stage, error: Exception, *, kind: str) -> ClipFailure:
    return ClipFailure(stage=stage, kind=kind, message=str(error) or type(error).__name__, retriable=False)
