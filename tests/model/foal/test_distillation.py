"""The distilled student's loss, worked out again from the formulas with networks whose answers are known."""

from typing import cast

import pytest
import torch
from torch import Tensor

from model.config import SamplingConfig
from model.foal.batches import Batch, Clips, Noise
from model.foal.distillation import IMAGE_GIVEN, TEACHER_STEPS, DistillationTask
from model.foal.flow import LOW_NOISE
from model.foal.training import Recipe
from model.transformer import Transformer
from tests.model.foal.fields import NOWHERE, Field, any_codec, any_text

SAMPLING = SamplingConfig(video_guidance=3.0, video_guidance_late=2.0, audio_guidance=4.0)
RECIPE = Recipe(seed=4, steps=1, batch_size=1, learning_rate=1.0)
Pair = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def task() -> DistillationTask:
    teacher = cast(Transformer, Field(0.3, 2.0))
    made = DistillationTask(
        RECIPE, teacher=teacher, sampling=SAMPLING, codec=any_codec(), text=any_text(), weights=NOWHERE, device="cpu"
    )
    made.model = cast(Transformer, Field(-0.2, 1.0))
    return made


AVERAGE = Field(0.1, -1.5)


def grid() -> list[float]:
    """The shifted schedule, from almost pure noise to clean."""
    uniform = [0.999 * (1 - n / TEACHER_STEPS) for n in range(TEACHER_STEPS)]
    return [5 * u / (1 + 4 * u) for u in uniform] + [0.0]


def levels(step: int) -> tuple[float, float]:
    """The step's share of the teacher's way is its first random number."""
    n = int(Noise(RECIPE.seed * 1_000_003 + step, device="cpu").uniform(1) * TEACHER_STEPS)
    return grid()[n], grid()[n + 1]


def clean_of(field: Field, video: Tensor, audio: Tensor, text: Tensor, s: float) -> Pair:
    """Preconditioning for data of size 1/4."""
    pull = field.pull.item() * text.mean()
    size2 = (1 - s) ** 2 / 16 + s**2
    share = field.share.item()
    outputs = (share * video + video.mean(2, keepdim=True) + pull, share * audio - pull)
    first, second = (
        noisy * (1 - s) / 16 / size2 + out * s / size2**0.5 for noisy, out in zip((video, audio), outputs, strict=True)
    )
    return first, second


def held(video: Tensor, batch: Batch) -> Tensor:
    video = video.clone()
    video[:, :, : batch.num_given] = batch.video[:, :, : batch.num_given]
    return video


def expected(step: int) -> dict[str, float]:
    clips = Clips(
        seed=4, size=1, codec=any_codec(), text=any_text(), device="cpu", text_dropped=0.0, image_given=IMAGE_GIVEN
    )
    batch, noise = clips.draw(step)
    noise.uniform(1)
    s, t = levels(step)
    video = held((1 - s) * batch.video + s * noise.like(batch.video), batch)
    audio = (1 - s) * batch.audio + s * noise.like(batch.audio)
    teacher = Field(0.3, 2.0)
    told = clean_of(teacher, video, audio, batch.text, s)
    untold = clean_of(teacher, video, audio, clips.empty_text(), s)
    scale = 3.0 if int(s * 1000) > 500 else 2.0
    wanted = untold[0] + scale * (told[0] - untold[0]), untold[1] + 4.0 * (told[1] - untold[1])
    if t > 0:  # an Euler step along the line from the noisy sample to the teacher's clean one
        next_video = held(video + (t - s) * (video - wanted[0]) / s, batch)
        next_audio = audio + (t - s) * (audio - wanted[1]) / s
        wanted = clean_of(AVERAGE, next_video, next_audio, batch.text, t)
    got = clean_of(Field(-0.2, 1.0), video, audio, batch.text, s)
    errors = [((one - other) / max(s, LOW_NOISE)) ** 2 for one, other in zip(got, wanted, strict=True)]
    return {
        "video": float((batch.weight * errors[0])[:, :, batch.num_given :].mean()),
        "audio": 4 * float(errors[1].mean()),
    }


STEPS = range(300)
CASES = {
    "early": next(step for step in STEPS if levels(step)[0] > 0.9),
    "late": next(step for step in STEPS if levels(step)[1] > 0 and levels(step)[0] < 0.5),
    "last": next(step for step in STEPS if levels(step)[1] == 0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_that_of_the_formulas(case: str, task: DistillationTask) -> None:
    step = CASES[case]
    losses = {name: loss.item() for name, loss in task.losses(step, AVERAGE).items()}
    assert losses == pytest.approx(expected(step), rel=1e-3)


def test_with_a_first_image_that_frame_is_held_and_not_scored(task: DistillationTask) -> None:
    step = next(step for step in STEPS if levels(step)[0] < 0.9 and task.clips.draw(step)[0].num_given)
    losses = {name: loss.item() for name, loss in task.losses(step, AVERAGE).items()}
    assert losses == pytest.approx(expected(step), rel=1e-3)
    student = cast(Field, task.model)
    assert student.seen is not None
    clean = task.clips.draw(step)[0].video
    assert torch.equal(student.seen[0][:, :, :1], clean[:, :, :1])
    assert not torch.allclose(student.seen[0][:, :, 1:], clean[:, :, 1:])


def test_only_the_student_learns(task: DistillationTask) -> None:
    torch.stack(list(task.losses(CASES["late"], AVERAGE).values())).sum().backward()
    student, teacher = cast(Field, task.model), cast(Field, task.teacher)
    assert student.share.grad is not None
    assert [teacher.share.grad, AVERAGE.share.grad] == [None, None]
