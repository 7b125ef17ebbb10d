"""Seconds, memory and errors of single stages on one card, after all that is made once was made."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.attention import full_attention
from model.config import TransformerConfig
from model.cost import parameters, stage_costs
from model.memory import NUM_LATENTS, activation_bytes
from model.renderer import ClipNoise
from model.sampling.distilled import sample_distilled
from model.sampling.prediction import velocity_of
from model.sampling.super_resolution import sample_super_resolution
from model.transformer import Transformer
from tests.bench.gpu import models
from tests.bench.gpu.targets import TEXT_TOKENS, Target, turbo

ENOUGH_S = 20.0  # a stage that takes longer is measured once
KERNELS = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How layers are computed."""

    fp8: bool
    compiler: str | None  # None: eager

    @property
    def name(self) -> str:
        return f"{'fp8' if self.fp8 else 'bfloat16'}, {'eager' if self.compiler is None else 'compiled'}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One stage of one clip. `first_s`: what its first step took beyond a later one, compilation mostly."""

    target: str
    stage: str
    way: str
    seconds: float
    first_s: float
    flops: int
    peak_bytes: int | None  # allocated; None on a CPU
    said_bytes: int  # by model/memory.py: weights of this stage, activations, latents


@dataclass(frozen=True, kw_only=True)
class Card:
    device: str
    peak_flops: float | None  # dense bfloat16; None: not known
    name: str = "cpu"
    repeats: int = 3

    @property
    def is_gpu(self) -> bool:
        return self.device.startswith("cuda")

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def forget_peak(self) -> None:
        if self.is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self.is_gpu else None

    def seconds(self, run: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - began

    def median_s(self, run: Callable[[], object]) -> float:
        taken = [self.seconds(run)]
        while len(taken) < self.repeats and sum(taken) < ENOUGH_S:
            taken.append(self.seconds(run))
        return statistics.median(taken)


def stages(target: Target) -> list[tuple[str, TransformerConfig]]:
    return list(target.model.transformers.items())


def measure_stage(
    target: Target, part: str, config: TransformerConfig, weights: dict[str, Tensor], *, way: Way, card: Card
) -> Measured:
    card.forget_peak()
    transformer = models.transformer(config, weights, fp8=way.fp8, compiler=way.compiler)
    whole, one = _sampling(target, part, transformer, card), _sampling(target, part, transformer, card, steps=1)
    first_s = card.seconds(one)
    first_s -= card.seconds(one)
    seconds = card.median_s(whole)
    costs = stage_costs(
        target.model, target.shape, steps=target.model.steps, text_tokens=TEXT_TOKENS, negative_tokens=0
    )
    cost = next(each for each in costs if each.part == part)
    held = parameters(config, dtype="bfloat16", fp8=way.fp8).num_bytes
    latents = 4 * NUM_LATENTS * torch.Size(_latent(target, part)).numel()
    return Measured(
        target=target.name,
        stage=part,
        way=way.name,
        seconds=seconds,
        first_s=max(first_s, 0.0),
        flops=cost.flops,
        peak_bytes=card.peak_bytes(),
        said_bytes=held + activation_bytes(config, tokens=cost.tokens, tp=1) + latents,
    )


def _latent(target: Target, part: str) -> tuple[int, int, int, int]:
    """Of a stage's video."""
    return (target.shape.first_latent if part == "distill" else None) or target.shape.video_latent


def _sampling(
    target: Target, part: str, transformer: Transformer, card: Card, *, steps: int | None = None
) -> Callable[[], object]:
    """A stage as `model.renderer` runs it; `steps` instead of its own."""
    noise = ClipNoise(0, device=card.device)
    shape, sound = _latent(target, part), target.shape.audio_latent
    video, audio = noise.draw(shape), noise.draw(sound)
    text = noise.draw((TEXT_TOKENS, transformer.config.text_in_channels))
    velocity = velocity_of(transformer)
    model = target.model
    if part == "distill":
        assert model.distilled is not None
        distilled = model.distilled
        return lambda: sample_distilled(
            velocity,
            video=video,
            audio=audio,
            text=text,
            noise=noise.pairs(shape, sound),
            steps=steps or distilled.steps,
            config=distilled,
        )
    assert model.super_resolution is not None
    config = model.super_resolution.sampling
    config = replace(config, steps=steps or config.steps)
    return lambda: sample_super_resolution(velocity, video=video, audio=audio, text=text, negative=None, config=config)


def measure_decode(target: Target, *, card: Card, small: bool) -> Measured:
    """Random latents of the last stage through the Turbo decoder, its frames as 8 bits on the CPU, window by window."""
    card.forget_peak()
    decoder = models.random_decoder(turbo(small=small), device=card.device)
    latent = ClipNoise(0, device=card.device).draw(target.shape.video_latent)[0]

    def decode() -> int:
        return sum(len(frames.cpu()) for frames in decoder.decode(latent))

    first_s = card.seconds(decode)
    seconds = card.median_s(decode)
    return Measured(
        target=target.name,
        stage="turbo decode",
        way="bfloat16, eager",
        seconds=seconds,
        first_s=max(first_s - seconds, 0.0),
        flops=0,
        peak_bytes=card.peak_bytes(),
        said_bytes=0,
    )


def velocity(target: Target, weights: dict[str, Tensor], *, way: Way, card: Card) -> Tensor:
    """Of the first stage's video at the first step."""
    part, config = stages(target)[0]
    noise = ClipNoise(0, device=card.device)
    transformer = models.transformer(config, weights, fp8=way.fp8, compiler=way.compiler)
    shape, sound = _latent(target, part), target.shape.audio_latent
    video, audio = noise.draw(shape), noise.draw(sound)
    video_out: Tensor = transformer(video, audio, noise.draw((TEXT_TOKENS, config.text_in_channels)))[0]
    return video_out.float().cpu()


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


def attention_seconds(target: Target, *, card: Card) -> dict[str, float]:
    """One layer's global attention at the last stage's length: as torch chooses, and by each kernel that takes it."""
    config = stages(target)[-1][1]
    num_tokens = target.shape.num_tokens + TEXT_TOKENS
    q, k, v = (
        torch.randn(1, heads, num_tokens, config.head_dim, dtype=torch.bfloat16, device=card.device)
        for heads in (config.num_heads_q, config.num_heads_kv, config.num_heads_kv)
    )
    found = {"as torch chooses": card.median_s(lambda: full_attention(q, k, v))}
    for kernel in KERNELS if card.is_gpu else ():
        try:
            with sdpa_kernel(kernel):
                full_attention(q, k, v)
                found[kernel.name] = card.median_s(lambda: full_attention(q, k, v))
        except RuntimeError:
            continue  # this card or this build has no such kernel
    return found
