"""The actors that work alone, and what all actors share; `rank_worker` has those that work together.

Heavy imports happen where they run, so that the driver and an idle process need none of them. Every answer about an
order is data: what it took in seconds, or a ClipFailure. What an actor raises costs it its life.
"""

import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import ray

from model.config import ModelConfig
from model.placing import RESIDENT, Placing
from pipeline.errors import ClipError, GroupLost, OutOfMemory, StoreError, WeightsError
from pipeline.fleet import Condition, Gpu, Picture, Sound, Text
from pipeline.inputs.access import OWN_FOLDER, InputAccess
from pipeline.publication import upload
from pipeline.scratch import DISK_FULL, scratch_folder, sweep
from pipeline.store import StorageSettings, open_store
from pipeline.types import Clip, ClipFailure, Finished, MediaSettings, SoundRef, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from model.request import Latents

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


class PromptEncoder:
    """Prompts to embeddings, images and sounds to latents, one after the other: none depends on its neighbours."""

    def __init__(self, place: Workplace) -> None:
        begin(place)
        self.place = place
        self.embed: Callable[[str], Tensor]

    def where(self) -> Seat:
        return seat()

    def start(self) -> None:
        from model.codecs import build_image_encoder, build_sound_encoder
        from model.text import build_text_encoder
        from pipeline.embeddings import KeptTexts, origin_of
        from pipeline.weights.opening import open_weights

        with self._loading():
            reader = open_weights(self.place.weights, self.place.storage)
            model, placing = self.place.model, self.place.placing
            cards = placing.encoder_cards if self.place.device == "cuda" else 0
            device = "cuda:0" if cards else "cpu"
            self.images = build_image_encoder(model, reader, device=device) if self.place.images else None
            self.sounds = build_sound_encoder(model, reader, device=device) if self.place.sounds else None
            if placing.text != "disk" and not cards:
                placing = RESIDENT  # there is no card to bring layers to
            sweep()  # what killed ones have left on this node
            self.folder = scratch_folder() if placing.text == "disk" else None
            folder = Path(self.folder.name) if self.folder is not None else None
            build = partial(
                build_text_encoder, model, reader, device=device, placing=placing, cards=cards, folder=folder
            )
            if not self.place.keep_embeddings:
                text = build()
                self.embed = lambda prompt: text.encode([prompt])[0]
                return
            self.embed = KeptTexts(
                open_store(self.place.output, self.place.storage),
                origin=origin_of(model, reader, device=device),
                channels=model.transformer.text_in_channels,
                build=self._loading()(build),
            ).embed

    @contextmanager
    def _loading(self) -> Iterator[None]:
        """Around all that reads weights, now or for the first prompt. GroupLost where its cards do not hold them."""
        import torch

        from pipeline.weights.opening import weights_errors

        try:
            with weights_errors(self.place.weights):
                yield
        except torch.OutOfMemoryError as error:
            raise GroupLost(f"loading: {self._shortage(error)}") from None

    def encode(self, conditions: tuple[Condition, ...]) -> "tuple[Verdict, *tuple[Tensor | None, ...]]":
        """The verdict, then what was made of each: all or none."""
        began = time.monotonic()
        made = _as_data("encode", lambda: [self._encode_within(condition) for condition in conditions])
        return (made, *[None] * len(conditions)) if isinstance(made, ClipFailure) else (time.monotonic() - began, *made)

    def _encode_within(self, condition: Condition) -> "Tensor":
        """What its cards do not hold is the failure of those who want it; the encoder goes on with the next one."""
        import torch

        try:
            return self._encode(condition)
        except torch.OutOfMemoryError as error:
            message = self._shortage(error, condition)
        if self.place.device == "cuda":
            torch.cuda.empty_cache()  # the error is gone, and its frames with what they held
        raise OutOfMemory(message)

    def _shortage(self, error: Exception, condition: Condition | None = None) -> str:
        import torch

        from pipeline.shortage import encoder_shortage

        model, pixels = self.place.model, 0
        if isinstance(condition, Picture):
            pixels = condition.latent_height * condition.latent_width * model.spatial_scale**2
        return encoder_shortage(
            error,
            model=model,
            placing=self.place.placing,
            has_images=self.place.images,
            pixels=pixels,
            look=torch.cuda.mem_get_info if self.place.device == "cuda" else None,
        )

    def _encode(self, condition: Condition) -> "Tensor":
        if isinstance(condition, Text):
            return self.embed(condition.prompt)
        return self._encode_picture(condition) if isinstance(condition, Picture) else self._encode_sound(condition)

    def _encode_picture(self, condition: Picture) -> "Tensor":
        from model.images import prepare_image
        from pipeline.inputs.images import load_image

        scale = self.place.model.spatial_scale
        data = load_image(condition.image, storage=self.place.storage, access=self.place.input_access)
        height, width = condition.latent_height * scale, condition.latent_width * scale
        try:
            pixels = prepare_image(data, height=height, width=width)
        except ValueError as error:
            raise ClipError(str(error)) from error
        assert self.images is not None  # a place without images gets no pictures
        return self.images.encode_image(pixels)

    def _encode_sound(self, condition: Sound) -> "Tensor":
        from model.sounds import mono

        assert self.sounds is not None  # a place without given sounds gets none
        waveform = _load_fitted(
            condition.sound, self.place, to_rate_hz=self.sounds.encoded_rate_hz, seconds=condition.duration_s
        )
        return self.sounds.encode_sound(mono(waveform), num_latents=condition.num_latents)


class Finisher:
    """Latents to delivered files: decoded by windows into ffmpeg, probed, uploaded under names of this attempt."""

    def __init__(self, place: Workplace) -> None:
        begin(place)
        self.place = place
        self.store = open_store(place.output, place.storage)

    def where(self) -> Seat:
        return seat()

    def start(self) -> None:
        from model.codecs import build_audio_decoder, build_video_decoder
        from pipeline.weights.opening import open_weights, weights_errors

        with weights_errors(self.place.weights):
            reader = open_weights(self.place.weights, self.place.storage)
            has_card = self.place.device == "cuda" and self.place.placing.finisher_cards > 0
            device = "cuda:0" if has_card else "cpu"  # Ray shows it its own card alone
            self.video = build_video_decoder(self.place.model, reader, device=device)
            self.audio = build_audio_decoder(self.place.model, reader, device=device)
        sweep()  # what killed finishers have left on this node

    def finish(self, clip: Clip, attempt: str, latents: "Latents") -> Finished | ClipFailure:
        return _as_data("finish", lambda: self._finish(clip, attempt, latents))

    def _finish(self, clip: Clip, attempt: str, latents: "Latents") -> Finished:
        from pipeline.media import check_probe, encode_clip, probe_mp4

        began = time.monotonic()
        frames = _Timed(window.numpy() for window in self.video.decode(latents.video))
        waveform = self._waveform(clip, latents) if clip.audio else None
        decoded_sound = time.monotonic()
        with scratch_folder() as folder:
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

    def _waveform(self, clip: Clip, latents: "Latents") -> Any:
        """What is heard: the given sound itself, or what the model made."""
        if clip.audio_in is None:
            return self.audio.decode(latents.audio).numpy()
        from model.sounds import delivered

        rate_hz = clip.shape.sample_rate_hz
        return delivered(_load_fitted(clip.audio_in, self.place, to_rate_hz=rate_hz, seconds=clip.duration_s)).numpy()


def _load_fitted(ref: SoundRef, place: Workplace, *, to_rate_hz: int, seconds: int) -> "Tensor":
    """A given sound as long as its clip, [channels, samples]."""
    import torch

    from model.sounds import fitted
    from pipeline.inputs.sounds import load_sound

    found = load_sound(ref, longest_s=seconds, storage=place.storage, access=place.input_access)
    waveform = torch.from_numpy(found.waveform)
    return fitted(waveform, rate_hz=found.rate_hz, to_rate_hz=to_rate_hz, seconds=seconds)


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


def _as_data(stage: Stage, make: Callable[[], Made]) -> Made | ClipFailure:
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
