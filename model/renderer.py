"""What one rank holds: its share of the Transformer, and the way from a request to clean latents.

Every rank of a group gets the same request and ends with the same latents; noise comes from one CPU generator a clip.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from model.config import ModelConfig
from model.parallel import shard
from model.sampling.base import sample_base
from model.sampling.prediction import velocity_of
from model.transformer import Transformer
from model.weights import WeightReader, load_transformer_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class RenderRequest:
    """All that decides a clip's latents. n and m text tokens, Ct text channels."""

    text: Tensor  # [n, Ct]
    negative: Tensor | None  # [m, Ct]; None: no guidance, one forward a step
    video_latent: tuple[int, int, int, int]  # C, T, H, W
    audio_latent: tuple[int, int]  # L, Ca
    seed: int
    steps: int
    guidance: float | None
    image_latent: Tensor | None  # [C, 1, H, W]: the clean first frame


@dataclass(frozen=True, kw_only=True)
class Latents:
    """float32, on the CPU."""

    video: Tensor  # [C, T, H, W]
    audio: Tensor  # [L, Ca]


def clip_noise(request: RenderRequest) -> tuple[Tensor, Tensor]:
    """(video [1, C, T, H, W], audio [1, L, Ca]): one stream, audio first, as the released model draws it."""
    generator = torch.Generator().manual_seed(request.seed)
    audio = torch.randn((1, *request.audio_latent), generator=generator)
    return torch.randn((1, *request.video_latent), generator=generator), audio


class Renderer:
    def __init__(self, model: ModelConfig, transformer: Transformer, *, device: str) -> None:
        self.model = model
        self.transformer = transformer
        self.device = device

    @classmethod
    def load(
        cls, model: ModelConfig, reader: WeightReader, *, group: dist.ProcessGroup | None, device: str
    ) -> "Renderer":
        """This rank's slices, read by explicit ranges. Raises WeightsMismatch, or ValueError for an impossible size."""
        tp = dist.get_world_size(group) if group is not None else 1
        rank = dist.get_rank(group) if group is not None else 0
        with torch.device("meta"):
            transformer = Transformer(model.transformer, dtype=DTYPES[model.compute_dtype])
        shard(transformer, tp=tp, rank=rank, group=group)
        load_transformer_weights(
            transformer, reader, part="base", config=model.transformer, tp=tp, rank=rank, device=device
        )
        return cls(model, transformer.eval().requires_grad_(False), device=device)

    def check(self, request: RenderRequest) -> None:
        """Raises ValueError, on every rank alike and before any collective, for a request that cannot be rendered."""
        config = self.model.transformer
        channels, _, height, width = request.video_latent
        if channels != config.video_latent_channels or height % 2 or width % 2:
            expected = f"{config.video_latent_channels} channels and an even height and width"
            raise ValueError(f"video latent is {request.video_latent}, expected {expected}")
        if request.audio_latent[1] != config.audio_in_channels:
            raise ValueError(f"audio latent is {request.audio_latent}, expected {config.audio_in_channels} channels")
        for name, text in (("text", request.text), ("negative", request.negative)):
            if text is not None and (text.dim() != 2 or text.shape[1] != config.text_in_channels or not len(text)):
                raise ValueError(f"{name} is {list(text.shape)}, expected [n, {config.text_in_channels}] with n > 0")
        image = request.image_latent
        if image is not None and tuple(image.shape) != (channels, 1, height, width):
            raise ValueError(f"image latent is {list(image.shape)}, expected {[channels, 1, height, width]}")
        if request.steps < 1:
            raise ValueError(f"steps is {request.steps}, expected at least 1")

    @torch.inference_mode()
    def render(self, request: RenderRequest, *, on_step: Callable[[int, int], None] | None = None) -> Latents:
        """Denoise one clip; `on_step(done, total)` is called after each step."""
        self.check(request)
        video_noise, audio_noise = (noise.to(self.device) for noise in clip_noise(request))
        video, audio = sample_base(
            velocity_of(self.transformer),
            video=video_noise,
            audio=audio_noise,
            text=self._batched(request.text),
            negative=None if request.negative is None else self._batched(request.negative),
            sampling=self.model.sampling,
            steps=request.steps,
            guidance=request.guidance,
            image_latent=None if request.image_latent is None else self._batched(request.image_latent),
            on_step=on_step,
        )
        return Latents(video=video[0].cpu(), audio=audio[0].cpu())

    def _batched(self, tensor: Tensor) -> Tensor:
        return tensor[None].float().to(self.device)
