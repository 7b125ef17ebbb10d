"""Trains the foal's distilled student: the guided base Transformer's answer in few steps, one forward each.

Consistency distillation (Song et al. 2023; with guidance: Luo et al. 2023): on a noisy clip the student must say what
its own average says one step of the teacher further on. The teacher takes that step with guidance.
"""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from model.codecs.foal import FoalVideoCodec
from model.config import SamplingConfig
from model.foal.batches import Batch, Clips, Noise
from model.foal.flow import AUDIO_WEIGHT, beside, export_transformer, hold_given, mixed, predict, velocity_error
from model.foal.training import Recipe, Task
from model.sampling.schedules import flow_sigmas
from model.text import FoalTextEncoder
from model.transformer import Transformer

IMAGE_GIVEN = 0.25  # batches with a clean first frame: the teacher knows what to do with one
TEACHER_STEPS = 24  # of the schedule that the teacher walks; the student's steps are among them


class DistillationTask(Task):
    def __init__(
        self,
        recipe: Recipe,
        *,
        teacher: Transformer,
        sampling: SamplingConfig,
        codec: FoalVideoCodec,
        text: FoalTextEncoder,
        weights: Path,
        device: str,
    ) -> None:
        self.recipe, self.weights, self.sampling = recipe, weights, sampling
        self.clips = Clips(
            seed=recipe.seed,
            size=recipe.batch_size,
            codec=codec,
            text=text,
            device=device,
            text_dropped=0.0,
            image_given=IMAGE_GIVEN,
        )
        self.teacher = teacher.eval().requires_grad_(False).to(device)
        self.model: Transformer = copy.deepcopy(teacher).requires_grad_(True)

    def losses(self, step: int, average: nn.Module) -> dict[str, Tensor]:
        batch, noise = self.clips.draw(step)
        sigma, next_sigma = self._levels(len(batch.video), noise)
        video = hold_given(mixed(batch.video, noise.like(batch.video), sigma), batch.video, batch)
        audio = mixed(batch.audio, noise.like(batch.audio), sigma)
        with torch.no_grad():
            wanted = self._wanted(batch, video, audio, sigma, next_sigma, average)
        got = predict(self.model, video, audio, batch.text, sigma)
        return {
            "video": (batch.weight * velocity_error(got[0], wanted[0], sigma))[:, :, batch.num_given :].mean(),
            "audio": AUDIO_WEIGHT * velocity_error(got[1], wanted[1], sigma).mean(),
        }

    def _levels(self, count: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """Where a teacher's step begins and where it ends, [count] each."""
        sigmas, _ = flow_sigmas(TEACHER_STEPS, shift=self.sampling.flow_shift, start=self.sampling.flow_start)
        u = noise.uniform(count)
        index, grid = (u * TEACHER_STEPS).long(), sigmas.to(u)
        return grid[index], grid[index + 1]

    def _wanted(
        self, batch: Batch, video: Tensor, audio: Tensor, sigma: Tensor, next_sigma: Tensor, average: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """What the average says after the teacher's step; where the step ends clean, what the teacher says."""
        clean_video, clean_audio = self._guided(video, audio, batch.text, sigma)
        next_video = hold_given(_towards(clean_video, video, sigma, next_sigma), batch.video, batch)
        next_audio = _towards(clean_audio, audio, sigma, next_sigma)
        said_video, said_audio = predict(average, next_video, next_audio, batch.text, next_sigma.clamp(min=1e-3))
        last = next_sigma == 0
        return (
            torch.where(beside(last, video), clean_video, said_video),
            torch.where(beside(last, audio), clean_audio, said_audio),
        )

    def _guided(self, video: Tensor, audio: Tensor, text: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's clean samples under the base stage's guidance."""
        empty = self.clips.empty_text().expand(len(video), -1, -1)
        (with_video, with_audio), (video_n, audio_n) = (
            predict(self.teacher, video, audio, words, sigma) for words in (text, empty)
        )
        sampling = self.sampling
        early = (sigma * 1000).long() > sampling.guidance_switch
        scale = beside(torch.where(early, sampling.video_guidance, sampling.video_guidance_late), video)
        return video_n + scale * (with_video - video_n), audio_n + sampling.audio_guidance * (with_audio - audio_n)

    def export(self, average: nn.Module) -> None:
        export_transformer(average, self.weights / "distill")


def _towards(clean: Tensor, noisy: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    """The Euler step from one noise level to the next."""
    share = beside(next_sigma / sigma, noisy)
    return share * noisy + (1 - share) * clean
