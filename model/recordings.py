"""What each family of recorded files holds, computed again: Transformers, schedules, samplers, the Turbo decoder.

Errors are relative L2, ||got - recorded|| / ||recorded||, or four times the error of scale where that is larger:
rounding to bfloat16 scatters, but hardly scales, so a wrong factor of 1 % shows under a limit of 2 %.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from model.codecs.turbo import TurboConfig, TurboDecoder
from model.config import CoordsStyle, DistilledConfig, SamplingConfig, SuperResolutionConfig, TransformerConfig
from model.parallel import shard
from model.positions import coordinates, rotary_table
from model.sampling.base import sample_base
from model.sampling.distilled import renoise, sample_distilled
from model.sampling.prediction import velocity_of
from model.sampling.schedules import flow_sigmas
from model.sampling.super_resolution import sample_super_resolution, signal_levels, start_audio, start_video
from model.sampling.unipc import UniPC
from model.transformer import Transformer, patchify
from model.weights import LocalWeights, load_module, load_transformer_weights

SCALE_WEIGHT = 4
LIMITS = {"float32": 1e-4, "bfloat16": 2e-2}
Verdict = Literal["ok", "OFF"]


class ParityError(Exception):
    """The recorded files could not be checked at all."""


@dataclass(frozen=True, kw_only=True)
class ParityRow:
    """One recorded tensor and how far this machine is from it."""

    file: str
    output: str
    error: float
    limit: float
    verdict: Verdict


@dataclass(frozen=True)
class Recording:
    """One file, with the folder its weights lie in and the ranks to compute it on."""

    folder: str
    name: str
    tensors: dict[str, Tensor]
    notes: dict[str, Any]
    group: dist.ProcessGroup | None
    tp: int
    rank: int

    def row(self, output: str, got: Tensor, *, limit: float = LIMITS["float32"]) -> ParityRow:
        recorded = self.tensors[output].double()
        if got.numel() != recorded.numel():
            raise ParityError(f"{self.name}: {output} is {list(recorded.shape)}, computed is {list(got.shape)}")
        got = got.detach().double().reshape(recorded.shape)
        size = recorded.norm().clamp(min=1e-30)
        scale = ((got * recorded).sum() / size**2).item()
        error = max(((got - recorded).norm() / size).item(), SCALE_WEIGHT * abs(scale - 1) * (size > 1e-30).item())
        verdict: Verdict = "ok" if error <= limit else "OFF"
        return ParityRow(file=self.name, output=output, error=error, limit=limit, verdict=verdict)

    def transformer(self, config: TransformerConfig, *, weights: str, dtype: torch.dtype) -> Transformer:
        with torch.device("meta"):
            model = Transformer(config, dtype=dtype)
        shard(model, tp=self.tp, rank=self.rank, group=self.group)
        load_transformer_weights(
            model,
            LocalWeights(self.folder),
            part=weights,
            config=config,
            tp=self.tp,
            rank=self.rank,
            device="cpu",
        )
        return model


def transformer_config(recorded: dict[str, Any], *, coords_style: CoordsStyle, radius: int) -> TransformerConfig:
    shape: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in recorded.items()}
    return TransformerConfig(**shape, coords_style=coords_style, frame_receptive_field=radius)


def _dit(recording: Recording) -> Iterator[ParityRow]:
    notes, tensors = recording.notes, recording.tensors
    config = transformer_config(
        notes["config"], coords_style=notes["coords_style"], radius=notes["frame_receptive_field"]
    )
    limit = LIMITS[notes["compute"]]
    weights = recording.name.rsplit("_", 1)[0] + "_weights"
    model = recording.transformer(config, weights=weights, dtype=getattr(torch, notes["compute"]))
    video, audio, text = tensors["in.video"], tensors["in.audio"], tensors["in.text"][:, : notes["text_len"]]
    yield recording.row("mid.tokens", _padded_tokens(video, audio, text, width=tensors["mid.tokens"].shape[-1]))
    grid = (video.shape[2], video.shape[3] // 2, video.shape[4] // 2)
    coords = coordinates(grid, audio_length=audio.shape[1], text_length=text.shape[1], style=config.coords_style)
    yield recording.row("mid.coords", coords)
    yield recording.row("mid.rope_sin_cos", torch.cat(rotary_table(coords, model.adapter.rope.bands), dim=-1))
    video_out, audio_out = model(video, audio, text)
    yield recording.row("out.video", video_out, limit=limit)
    yield recording.row("out.audio", audio_out, limit=limit)


def _padded_tokens(video: Tensor, audio: Tensor, text: Tensor, *, width: int) -> Tensor:
    parts = [patchify(video)[0], audio[0], text[0]]
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])


def _schedulers(recording: Recording) -> Iterator[ParityRow]:
    tensors, shift = recording.tensors, recording.notes["flow_shift"]
    for steps in (5, 8, 32):
        sigmas, timesteps = flow_sigmas(steps, shift=shift)
        yield recording.row(f"unipc{steps}.sigmas", sigmas)
        yield recording.row(f"unipc{steps}.timesteps", torch.tensor(timesteps))
        solver, x, states = UniPC(sigmas), tensors[f"unipc{steps}.x0"], []
        for timestep in timesteps:
            x = solver.step(_field(x, timestep), x)
            states.append(x)
        yield recording.row(f"unipc{steps}.trajectory", torch.stack(states))
    sigmas, timesteps = flow_sigmas(8, shift=shift)
    x, states = tensors["renoise8.x0"], []
    for n, timestep in enumerate(timesteps):
        noise = tensors["renoise8.noise"][n]
        x = renoise(_field(x, timestep), x, noise, sigma=float(sigmas[n]), next_sigma=float(sigmas[n + 1]))
        states.append(x)
    yield recording.row("renoise8.trajectory", torch.stack(states))
    yield recording.row("sr.alpha_sqrt_table", signal_levels())


def _field(x: Tensor, timestep: int) -> Tensor:
    """The velocity field the trajectories were recorded on."""
    return torch.tanh(0.7 * x) + 0.3 * torch.sin(3 * x) * timestep / 1000


def _samplers(recording: Recording) -> Iterator[ParityRow]:
    notes, tensors = recording.notes, recording.tensors
    config = transformer_config(notes["base_config"], coords_style="v2", radius=-1)
    model = recording.transformer(config, weights="samplers_base_weights", dtype=torch.float32)
    for output, image in (("base_t2v", None), ("base_i2v", tensors["in.image_latent"])):
        video, audio = sample_base(
            velocity_of(model),
            video=tensors["in.video_noise"],
            audio=tensors["in.audio_noise"],
            text=tensors["in.text"][:, : notes["text_len"]],
            negative=tensors["in.negative"][:, : notes["negative_len"]],
            sampling=SamplingConfig(flow_shift=notes["flow_shift"]),
            steps=notes["base_steps"],
            image_latent=image,
        )
        yield recording.row(f"{output}.video", video)
        yield recording.row(f"{output}.audio", audio)
        yield from _distilled(recording, model, output.replace("base", "distill"), image)
    yield from _super_resolution(recording)


def _distilled(recording: Recording, model: Transformer, output: str, image: Tensor | None) -> Iterator[ParityRow]:
    notes, tensors = recording.notes, recording.tensors
    steps = range(notes["distill_steps"])
    video, audio = sample_distilled(
        velocity_of(model),
        video=tensors["in.video_noise"],
        audio=tensors["in.audio_noise"],
        text=tensors["in.text"][:, : notes["text_len"]],
        noise=((tensors[f"{output}.noise_video.{n}"], tensors[f"{output}.noise_audio.{n}"]) for n in steps),
        steps=notes["distill_steps"],
        config=DistilledConfig(flow_shift=notes["flow_shift"]),
        image_latent=image,
    )
    yield recording.row(f"{output}.video", video)
    yield recording.row(f"{output}.audio", audio)


def _super_resolution(recording: Recording) -> Iterator[ParityRow]:
    notes, tensors = recording.notes, recording.tensors
    config = SuperResolutionConfig(
        steps=notes["sr_steps"],
        flow_shift=notes["flow_shift"],
        noise_level=notes["sr_noise_index"],
        audio_noise_scale=notes["sr_audio_noise_scale"],
    )
    shape = transformer_config(notes["sr_config"], coords_style="v1", radius=notes["sr_frame_receptive_field"])
    model = recording.transformer(shape, weights="samplers_sr_weights", dtype=torch.float32)
    video = start_video(tensors["base_t2v.video"], tensors["sr.noise_video"], config=config)
    yield recording.row("sr.start_video", video)
    audio = start_audio(tensors["base_t2v.audio"], tensors["sr.noise_audio"], noise_scale=config.audio_noise_scale)
    yield recording.row("sr.start_audio", audio)
    for output, guided in (("sr_cfg1", False), ("sr_cfg2", True)):
        clean = sample_super_resolution(
            velocity_of(model),
            video=video,
            audio=audio,
            text=tensors["in.text"][:, : notes["text_len"]],
            negative=tensors["in.negative"][:, : notes["negative_len"]] if guided else None,
            config=config,
        )
        yield recording.row(f"{output}.video", clean)
        yield recording.row(f"{output}.audio_after", audio)


def _turbo(recording: Recording) -> Iterator[ParityRow]:
    decoder = TurboDecoder(TurboConfig.from_json(recording.notes["config"]))
    load_module(decoder, LocalWeights(recording.folder), part="turbo_vae_weights")
    for output in [name for name in recording.tensors if name.startswith("video.")]:
        latent = recording.tensors[output.replace("video", "latent")][0]
        yield recording.row(output, torch.cat(list(decoder.windows(latent)), dim=1))


FAMILIES: dict[str, Callable[[Recording], Iterator[ParityRow]]] = {
    "dit_*": _dit,
    "schedulers*": _schedulers,
    "samplers_*": _samplers,
    "turbo_*": _turbo,
}
