"""The actor that makes what clips are conditioned on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from model.placing import RESIDENT
from pipeline.errors import ClipError, GroupLost, OutOfMemory
from pipeline.fleet import Condition, Picture, Sound, Text
from pipeline.scratch import scratch_folder, sweep
from pipeline.store import open_store
from pipeline.types import ClipFailure
from pipeline.worker import Seat, Verdict, Workplace, as_data, begin, load_fitted, seat

if TYPE_CHECKING:
    from torch import Tensor


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
        made = as_data("encode", lambda: [self._encode_within(condition) for condition in conditions])
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
        waveform = load_fitted(
            condition.sound, self.place, to_rate_hz=self.sounds.encoded_rate_hz, seconds=condition.duration_s
        )
        return self.sounds.encode_sound(mono(waveform), num_latents=condition.num_latents)
