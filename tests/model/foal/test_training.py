"""Short trainings of all four parts: losses fall, what was killed goes on exactly, the renderer loads the weights."""

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from model.codecs import build_video_decoder
from model.config import DistilledConfig, ModelConfig, SuperResolutionStage
from model.foal.codec_training import CodecTask
from model.foal.curves import write_curves
from model.foal.flow import BASE
from model.foal.super_resolution import SAMPLING, SUPER_RESOLUTION
from model.foal.train import build_task, plan
from model.foal.training import Recipe, Task, Trainer, fit
from model.parts import check_weights
from model.renderer import Renderer
from model.request import RenderRequest
from model.text import build_text_encoder
from model.weights import LocalWeights
from tests.model.foal.recipes import RECIPES
from tests.models import small_model

pytestmark = pytest.mark.slow
FOLDERS = {"codec": "codec", "base": "base", "distilled": "distill", "super_resolution": "128p_sr"}  # of the weights
SAVE_EVERY = {"codec": 25, "base": 6, "distilled": 2, "super_resolution": 2}
FIXED_STEPS = range(1000, 1004)  # whose batches no training of these sees


class Watched(Task):
    """A task that calls `look` before step `at`."""

    def __init__(self, task: Task, *, at: int, look: Callable[[], object]) -> None:
        self.task, self.recipe, self.model = task, task.recipe, task.model
        self.at, self.look = at, look

    def losses(self, step: int, average: nn.Module) -> dict[str, Tensor]:
        if step == self.at:
            self.look()
        return self.task.losses(step, average)

    def export(self, average: nn.Module) -> None:
        self.task.export(average)


@dataclass(frozen=True, kw_only=True)
class Trained:
    out: Path
    killed: dict[str, Path]  # part -> what the disk held in the midst of its training
    losses: dict[str, list[dict[str, float]]]  # part -> on fixed batches, before and after


def fresh_task(part: str, recipe: Recipe, out: Path, codec_task: CodecTask) -> Task:
    if part != "codec":
        return build_task(part, recipe, weights=out / "weights", device="cpu")
    task = copy.deepcopy(codec_task)
    task.recipe, task.weights = recipe, out / "weights"
    return task


def last_step(part: str) -> int:
    """Steps that were taken when it is killed; the last of them were not saved."""
    return RECIPES[part].steps - 1


@pytest.fixture(scope="module")
def trained(codec_task: CodecTask, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    out = tmp_path_factory.mktemp("trained") / "foal"
    result = Trained(out=out, killed={}, losses={})
    for part, recipe in RECIPES.items():
        task = fresh_task(part, recipe, out, codec_task)
        killed = result.killed[part] = out.with_name(f"killed-{part}")

        def copy_all(target: Path = killed) -> None:
            shutil.copytree(out, target)

        before = fixed_losses(task)
        fit(Watched(task, at=last_step(part), look=copy_all), out=out / part, save_every=SAVE_EVERY[part])
        result.losses[part] = [before, fixed_losses(task)]
        write_curves(out / part)
    return result


@torch.no_grad()
def fixed_losses(task: Task) -> dict[str, float]:
    batches = [task.losses(step, task.model) for step in FIXED_STEPS]
    return {name: sum(float(losses[name]) for losses in batches) for name in batches[0]}


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def without_times(logged: list[dict[str, float]]) -> dict[float, dict[str, float]]:
    """The last row of each step."""
    return {row["step"]: {name: value for name, value in row.items() if name != "cpu_s"} for row in logged}


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    if isinstance(one, Tensor):
        return [] if torch.equal(one, other) else [at]
    if isinstance(one, dict):
        assert one.keys() == other.keys(), at
        return [found for key in one for found in differences(one[key], other[key], f"{at}.{key}")]
    if isinstance(one, list):
        assert len(one) == len(other), at
        return [found for n in range(len(one)) for found in differences(one[n], other[n], f"{at}[{n}]")]
    return [] if one == other else [at]


@pytest.mark.parametrize(("part", "names"), [("codec", ["pixels", "slopes"]), ("base", ["video", "audio"])])
def test_losses_on_clips_that_it_never_saw_fall(trained: Trained, part: str, names: list[str]) -> None:
    """The codec's squares, which start almost as low as they end, take more steps than these."""
    before, after = trained.losses[part]
    assert all(0 < after[name] < 0.98 * before[name] for name in names), trained.losses[part]


@pytest.mark.parametrize("part", RECIPES)
def test_what_was_killed_goes_on_to_the_same_bits(
    part: str, trained: Trained, codec_task: CodecTask, tmp_path: Path
) -> None:
    out = shutil.copytree(trained.killed[part], tmp_path / "foal")
    recipe = RECIPES[part]
    saved = torch.load(out / part / "state.pt", weights_only=True)["step"]
    assert 0 < saved < last_step(part), "it was killed between two saves"
    assert [row["step"] for row in rows(out / part)] == [*range(1, last_step(part) + 1)]

    fit(fresh_task(part, recipe, out, codec_task), out=out / part, save_every=1)

    straight, resumed = (torch.load(root / part / "state.pt", weights_only=True) for root in (trained.out, out))
    assert differences(straight, resumed) == []
    assert resumed["step"] == recipe.steps
    weights = f"weights/{FOLDERS[part]}/model.safetensors"
    assert (out / weights).read_bytes() == (trained.out / weights).read_bytes()
    assert without_times(rows(out / part)) == without_times(rows(trained.out / part))
    assert len(rows(out / part)) == last_step(part) + recipe.steps - saved, "nothing before the save is done again"


def test_a_training_that_is_done_is_left_alone(trained: Trained, codec_task: CodecTask, tmp_path: Path) -> None:
    out = shutil.copytree(trained.out, tmp_path / "foal")
    fit(fresh_task("codec", RECIPES["codec"], out, codec_task), out=out / "codec", save_every=1)
    for name in ("log.jsonl", "state.pt"):
        assert (out / "codec" / name).read_bytes() == (trained.out / "codec" / name).read_bytes()


@pytest.mark.parametrize("part", RECIPES)
def test_what_is_written_is_the_moving_average(part: str, trained: Trained) -> None:
    """Some of it in bfloat16. Of the codec it is the decoder that is trained."""
    state = torch.load(trained.out / part / "state.pt", weights_only=True)
    written = load_file(trained.out / "weights" / FOLDERS[part] / "model.safetensors")
    prefix = "decoder." if part == "codec" else ""
    for name, tensor in state["average"].items():
        stored = written.pop(prefix + name)
        assert torch.equal(stored, tensor.to(stored.dtype)), name
    assert {name.partition(".")[0] for name in written} == ({"encoder"} if part == "codec" else set())
    assert differences(state["average"], state["model"])


@pytest.mark.parametrize("change", ["steps", "seed", "batch_size", "learning_rate", "ema_decay"])
def test_another_recipe_is_refused(change: str, trained: Trained, codec_task: CodecTask) -> None:
    recipe = dataclasses.replace(RECIPES["codec"], **{change: type(getattr(RECIPES["codec"], change))(3)})
    trainer = Trainer(fresh_task("codec", recipe, trained.out, codec_task))
    with pytest.raises(ValueError, match=rf"state\.pt was trained with {change} .*, not 3"):
        trainer.resume(trained.out / "codec" / "state.pt")


def test_a_plan_names_what_is_missing_or_another() -> None:
    nowhere = Path("no/such/folder")
    assert [*plan(["codec", "base"], steps=3, seed=None, out=nowhere)] == ["codec", "base"]
    for parts, said in (
        (["base"], "base needs codec, not trained to the end in no/such/folder"),
        (["codec", "distilled"], "distilled needs base, not"),
        (["distilled"], "distilled needs codec and base, not"),
        (["super_resolution", "codec"], "super_resolution needs codec, not"),
        (["sound"], "unknown part 'sound', expected some of codec, base, distilled, super_resolution"),
    ):
        with pytest.raises(ValueError, match=said):
            plan(parts, steps=3, seed=None, out=nowhere)


def test_a_plan_refuses_what_stands_in_its_folder(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"codec/state\.pt was trained with steps 60, not 7"):
        plan(["codec"], steps=7, seed=None, out=trained.out)
    with pytest.raises(ValueError, match="base needs codec, not trained to the end"):
        plan(["base"], steps=None, seed=None, out=trained.killed["codec"])
    (tmp_path / "codec").mkdir()
    (tmp_path / "codec" / "state.pt").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(ValueError, match=r"codec/state\.pt holds no training"):
        plan(["codec"], steps=7, seed=None, out=tmp_path)


def the_model(first_stage: Literal["base", "distilled"]) -> ModelConfig:
    stage = SuperResolutionStage(
        part="128p_sr", transformer=SUPER_RESOLUTION, sampling=dataclasses.replace(SAMPLING, steps=1)
    )
    model = dataclasses.replace(small_model(), transformer=BASE, super_resolution=stage, distilled=DistilledConfig())
    return dataclasses.replace(model, first_stage=first_stage)


@pytest.mark.parametrize("first_stage", ["base", "distilled"])
def test_the_renderer_loads_what_was_written(first_stage: Literal["base", "distilled"], trained: Trained) -> None:
    model, reader = the_model(first_stage), LocalWeights(trained.out / "weights")
    check_weights(model, reader, tp=1, deep=True)
    text, empty = build_text_encoder(model, reader).encode(["A red ball bounces up and down", ""])
    renderer = Renderer.load(model, reader, device="cpu")
    latents = renderer.render(
        RenderRequest(
            text=text,
            negative=empty if first_stage == "base" else None,
            first_latent=(BASE.video_latent_channels, 3, 8, 8),
            video_latent=(BASE.video_latent_channels, 3, 16, 16),
            audio_latent=(10, BASE.audio_in_channels),
            seed=1,
            steps=1,
            guidance=None,
            image_latent=None,
        )
    )
    (frames,) = build_video_decoder(model, reader).decode(latents.video)
    assert frames.shape == (9, 128, 128, 3)
    assert latents.audio.isfinite().all()
