"""What one rank holds: its share of the Transformers, and the way from a request to clean latents.

Every rank of a group gets the same request and ends with the same latents; noise comes from one CPU generator a clip.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import overload

import torch
import torch.distributed as dist
from torch import Tensor

from model.compiling import compile_layers
from model.config import ModelConfig
from model.fp8 import check_device
from model.fp8_layers import prepare_fp8
from model.kernels import with_kernels
from model.layers import Layer
from model.offloading import Swapped, offload, stage_limits
from model.parallel import GroupSum, shard
from model.placing import RESIDENT, Placing
from model.request import Draft, Latents, RenderRequest, check_request
from model.sampling.base import OnStep, sample_base
from model.sampling.distilled import sample_distilled
from model.sampling.given_sound import GivenSound
from model.sampling.prediction import velocity_of
from model.sampling.super_resolution import sample_super_resolution, start_audio, start_video
from model.transformer import Transformer
from model.weights import WeightReader, load_transformer_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ClipNoise:
    """One stream of noise a clip, drawn on the CPU in the order of the released model."""

    def __init__(self, start: int | Tensor, *, device: str) -> None:
        """`start`: the clip's seed, or the state in which its noise was left."""
        self._generator = torch.Generator()
        self._generator.set_state(start) if isinstance(start, Tensor) else self._generator.manual_seed(start)
        self._device = device

    def state(self) -> Tensor:
        return self._generator.get_state()

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """[1, *shape], standard normal, float32. The CPU does not wait for a GPU that takes it."""
        pinned = self._device.startswith("cuda")
        drawn = torch.randn((1, *shape), generator=self._generator, pin_memory=pinned)
        return drawn.to(self._device, non_blocking=pinned)

    def pairs(self, video: tuple[int, ...], audio: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor]]:
        """(video, audio) for each step of the distilled stage."""
        while True:
            yield self.draw(video), self.draw(audio)


class Renderer:
    """`transformers` holds one Transformer a stage, by its folder below the weights root; the first comes first.

    A rank whose group has one stage alone holds no other: it drafts clips and renders those of one stage, or enlarges.
    """

    def __init__(
        self,
        model: ModelConfig,
        transformers: Mapping[str, Transformer],
        *,
        device: str,
        sums: Sequence[GroupSum] = (),
        swapped: Sequence[Swapped] = (),
    ) -> None:
        """`swapped`: for each stage, where only the one that works is on the device."""
        self.model = model
        self.swapped = tuple(swapped)
        first, *second = model.transformers
        self._first = transformers.get(first)
        self._second = transformers.get(second[0]) if second else None
        self.stages = list(transformers.values())
        self.sums = tuple(sums)
        self.device = device

    @classmethod
    def load(
        cls,
        model: ModelConfig,
        reader: WeightReader,
        *,
        tp: int = 1,
        rank: int = 0,
        device: str,
        placing: Placing = RESIDENT,
        parts: Collection[str] | None = None,
        folder: Path | None = None,
    ) -> "Renderer":
        """This rank's slices, read by explicit ranges. Raises WeightsMismatch, or ValueError for an impossible size.

        Ranks of more than one render after `join`; nobody has to wait for another to load. `parts` are those of the
        model's stages that are wanted here; None: all. `folder` is for weights that are offloaded to disk.
        """
        transformers, sums = {}, []
        at_first = device if placing.stages in ("resident", "apart") else "cpu"
        if model.fp8:
            check_device(device)
        for part, config in model.transformers.items():
            if parts is not None and part not in parts:
                continue
            with torch.device("meta"):
                transformer = Transformer(config, dtype=DTYPES[model.compute_dtype])
            sums.append(shard(transformer, tp=tp, rank=rank, group=None))
            if model.fp8:
                prepare_fp8(transformer)
            load_transformer_weights(transformer, reader, part=part, config=config, tp=tp, rank=rank, device=at_first)
            transformers[part] = transformer.eval().requires_grad_(False)
            if model.compiled:
                compile_layers(transformer)
            if placing.stages in ("offloaded", "disk"):
                limits = stage_limits(placing, device=device, num_stages=len(model.transformers))
                below = folder / part if folder is not None else None
                layer = [Layer.__name__]
                offload(transformer, limits=limits, device=device, no_split=layer, preloaded=layer, folder=below)
        swapped = []
        if placing.stages == "swapped":
            swapped = [Swapped(transformer, device=device) for transformer in transformers.values()]
        return cls(model, transformers, device=device, sums=sums, swapped=swapped)

    def join(self, group: dist.ProcessGroup | None) -> None:
        """The ranks to sum with from now on; the weights stay. None lets go of those before, who can be left then."""
        for each in self.sums:
            each.group = group

    def make_kernels(self, request: RenderRequest) -> None:
        """All that clips need, by rendering one of no use without the other ranks. Raises KernelsError."""
        for each in self.sums:
            each.is_silent = True
        try:
            with_kernels(lambda: self.warm_up(request), device=torch.device(self.device).type)
        finally:
            for each in self.sums:
                each.is_silent = False

    def warm_up(self, request: RenderRequest) -> None:
        """As far as the stages that are here go: of a clip that comes from another group, a draft of nothing."""
        if self._first is None and request.first_latent is not None:
            nothing = Latents(video=torch.zeros(request.first_latent), audio=torch.zeros(request.audio_latent))
            self.enlarge(request, Draft(latents=nothing, noise=ClipNoise(request.seed, device="cpu").state()))
        elif self._second is None:
            self.draft(request)
        else:
            self.render(request)

    def check(self, request: RenderRequest) -> None:
        """Raises ValueError, on every rank alike and before any collective, for a request that cannot be rendered."""
        check_request(self.model, request)

    def num_steps(self, request: RenderRequest) -> int:
        """Of the stages that are here."""
        first = request.steps if self._first is not None else 0
        second = self.model.super_resolution if self._second is not None else None
        return first + (second.sampling.steps if second is not None and request.first_latent is not None else 0)

    @torch.inference_mode()
    def render(self, request: RenderRequest, *, on_step: OnStep | None = None) -> Latents:
        """Denoise one clip through all its stages; `on_step(done, total)` is called after each step."""
        self.check(request)
        noise = ClipNoise(request.seed, device=self.device)
        total = self.num_steps(request)
        with self._at_work(0):
            video, audio = self._first_stage(request, noise, on_step=_counted(on_step, before=0, total=total))
        if request.first_latent is not None:
            told = _counted(on_step, before=request.steps, total=total)
            with self._at_work(1):
                video = self._super_resolution(request, noise, video=video, audio=audio, on_step=told)
        return _on_cpu(video, audio)

    @torch.inference_mode()
    def draft(self, request: RenderRequest, *, on_step: OnStep | None = None) -> Draft:
        """The first stage alone: with `enlarge`, elsewhere or here, it gives the bits of `render`."""
        self.check(request)
        noise = ClipNoise(request.seed, device=self.device)
        with self._at_work(0):
            video, audio = self._first_stage(request, noise, on_step=on_step)
        return Draft(latents=_on_cpu(video, audio), noise=noise.state())

    @torch.inference_mode()
    def enlarge(self, request: RenderRequest, draft: Draft, *, on_step: OnStep | None = None) -> Latents:
        """Super-resolution alone, of what `draft` left."""
        self.check(request)
        noise = ClipNoise(draft.noise, device=self.device)
        video, audio = self._batched(draft.latents.video), self._batched(draft.latents.audio)
        with self._at_work(1):
            video = self._super_resolution(request, noise, video=video, audio=audio, on_step=on_step)
        return Latents(video=video[0].cpu(), audio=draft.latents.audio)

    def _at_work(self, stage: int) -> AbstractContextManager[None]:
        return self.swapped[stage].at_work() if self.swapped else nullcontext()

    def _first_stage(
        self, request: RenderRequest, noise: ClipNoise, *, on_step: OnStep | None
    ) -> tuple[Tensor, Tensor]:
        shape = request.first_latent or request.video_latent
        audio = noise.draw(request.audio_latent)  # before the video, as released
        video = noise.draw(shape)
        velocity = velocity_of(_held(self._first), one_forward=self.model.one_forward)
        image = self._batched(request.image_latent)
        sound = self._given_sound(request, noise=audio)
        if self.model.first_stage == "distilled" and self.model.distilled is not None:
            return sample_distilled(
                velocity,
                video=video,
                audio=audio,
                text=self._batched(request.text),
                noise=noise.pairs(shape, request.audio_latent),
                steps=request.steps,
                config=self.model.distilled,
                image_latent=image,
                sound=sound,
                on_step=on_step,
            )
        return sample_base(
            velocity,
            video=video,
            audio=audio,
            text=self._batched(request.text),
            negative=self._batched(request.negative),
            sampling=self.model.sampling,
            steps=request.steps,
            guidance=request.guidance,
            image_latent=image,
            sound=sound,
            on_step=on_step,
        )

    def _given_sound(self, request: RenderRequest, *, noise: Tensor) -> GivenSound | None:
        clean = self._batched(request.sound_latent)
        if clean is None:
            return None
        return GivenSound(clean=clean, noise=noise if self.model.shows_sound_noised else None)

    def _super_resolution(
        self, request: RenderRequest, noise: ClipNoise, *, video: Tensor, audio: Tensor, on_step: OnStep | None
    ) -> Tensor:
        """The first stage's video [1, C, T, h, w] at the last stage's size; its sound is only listened to."""
        stage = self.model.super_resolution
        assert stage is not None  # checked
        start = start_video(video, noise.draw(request.video_latent), config=stage.sampling)
        heard = start_audio(audio, noise.draw(request.audio_latent), noise_scale=stage.sampling.audio_noise_scale)
        return sample_super_resolution(
            velocity_of(_held(self._second), one_forward=self.model.one_forward),
            video=start,
            audio=heard,
            text=self._batched(request.text),
            negative=self._batched(request.negative) if stage.sampling.guided else None,
            config=stage.sampling,
            image_latent=self._batched(request.large_image_latent),
            on_step=on_step,
        )

    @overload
    def _batched(self, tensor: Tensor) -> Tensor: ...

    @overload
    def _batched(self, tensor: Tensor | None) -> Tensor | None: ...

    def _batched(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[None].float().to(self.device)


def _held(transformer: Transformer | None) -> Transformer:
    assert transformer is not None, "this stage is another group's"
    return transformer


def _on_cpu(video: Tensor, audio: Tensor) -> Latents:
    return Latents(video=video[0].cpu(), audio=audio[0].cpu())


def _counted(on_step: OnStep | None, *, before: int, total: int) -> OnStep | None:
    """A stage's own count as part of the clip's."""
    if on_step is None:
        return None
    tell = on_step
    return lambda done, _: tell(before + done, total)
