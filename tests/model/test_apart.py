"""Stages in renderers of their own: what lies between them loses nothing, so the latents are those of one renderer."""

import multiprocessing as mp
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from model.config import ModelConfig
from model.placing import Placing
from model.renderer import Renderer
from model.request import Draft, Latents, RenderRequest
from model.transformer import Transformer
from model.weights import LocalWeights
from tests.model.test_stages import AUDIO, FIRST, LARGE, SECOND, SMALL, STAGE, model, random, request
from tests.weights import two_stage_model, write_weights

TIMEOUT = timedelta(seconds=60)


def same(one: Latents, other: Latents) -> bool:
    return torch.equal(one.video, other.video) and torch.equal(one.audio, other.audio)


def halves(made: ModelConfig) -> tuple[Renderer, Renderer]:
    first, second = made.transformers
    return Renderer(made, {first: FIRST}, device="cpu"), Renderer(made, {second: SECOND}, device="cpu")


@pytest.mark.parametrize("first_stage", ["base", "distilled"])
@pytest.mark.parametrize("guided", [False, True])
def test_a_draft_that_is_enlarged_elsewhere_is_the_clip(first_stage: str, guided: bool) -> None:
    stage = replace(STAGE, sampling=replace(STAGE.sampling, guided=guided))
    made = replace(model(first_stage=first_stage), super_resolution=stage)
    pictures = {"image_latent": random(16, 1, 4, 6, seed=3), "large_image_latent": random(16, 1, 8, 10, seed=4)}
    whole = Renderer(made, dict(zip(made.transformers, (FIRST, SECOND), strict=True)), device="cpu")
    first, second = halves(made)
    asked = [request(), request(**pictures)]
    asked += [request(sound_latent=random(*AUDIO, seed=5))] if first_stage == "base" else []
    told: list[tuple[int, int]] = []
    for each in asked:
        draft = first.draft(each, on_step=lambda done, total: told.append((done, total)))
        assert draft.latents.video.shape == SMALL
        assert draft.latents.video.dtype == draft.latents.audio.dtype == torch.float32
        assert first.num_steps(each) == second.num_steps(each) == 2
        latents = second.enlarge(each, draft, on_step=lambda done, total: told.append((done, total)))
        assert latents.video.shape == LARGE
        assert same(latents, whole.render(each))
    assert told == [(1, 2), (2, 2)] * 2 * len(asked), "each counts its own steps"


def test_a_clip_of_one_stage_needs_no_other() -> None:
    made = model()
    whole = Renderer(made, dict(zip(made.transformers, (FIRST, SECOND), strict=True)), device="cpu")
    first, _ = halves(made)
    small = request(video_latent=SMALL, first_latent=None)
    assert same(first.render(small), whole.render(small))


def test_a_group_warms_up_with_the_smallest_of_its_own_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[torch.Size] = []
    forward = Transformer.forward

    def watched(self: Transformer, video: Tensor, *others: Any) -> Any:
        shapes.append(video.shape[1:])
        return forward(self, video, *others)

    monkeypatch.setattr(Transformer, "forward", watched)
    for each, latent in zip(halves(model(first_stage="distilled")), (SMALL, LARGE), strict=True):
        shapes.clear()
        each.warm_up(request(steps=1))
        assert set(map(tuple, shapes)) == {latent}


def test_a_stage_that_is_elsewhere_is_missed() -> None:
    first, second = halves(model())
    with pytest.raises(AssertionError, match="another group's"):
        first.render(request())
    with pytest.raises(AssertionError, match="another group's"):
        second.draft(request())


def asked_for(made: ModelConfig) -> RenderRequest:
    channels = made.transformer.text_in_channels
    return RenderRequest(
        text=random(5, channels, seed=1),
        negative=random(3, channels, seed=2),
        video_latent=(16, 3, 8, 10),
        first_latent=(16, 3, 4, 6),
        audio_latent=(9, made.transformer.audio_in_channels),
        seed=3,
        steps=2,
        guidance=None,
        image_latent=None,
    )


def one_of_two(rank: int, port: int, weights: str, answers: Any) -> None:
    """A rank of three groups of two, one after the other: all stages, the first, super-resolution."""
    torch.set_num_threads(1)
    store = TCPStore("127.0.0.1", port, is_master=False, timeout=TIMEOUT, wait_for_workers=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=TIMEOUT)
    made, reader = two_stage_model(), LocalWeights(Path(weights))
    first, second = made.transformers
    whole, drafting, enlarging = (
        Renderer.load(made, reader, tp=2, rank=rank, device="cpu", placing=Placing(stages="apart"), parts=parts)
        for parts in (None, [first], [second])
    )
    for each in (whole, drafting, enlarging):
        each.join(dist.group.WORLD)
    asked = asked_for(made)
    boxes = [drafting.draft(asked)]
    dist.broadcast_object_list(boxes, src=0)  # all ranks go on from rank 0's, as another group's do
    answers.put((rank, same(enlarging.enlarge(asked, boxes[0]), whole.render(asked))))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"), two_stage_model())


def test_groups_of_two_real_ranks_hand_over_the_same_bits(weights: Path) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
    context = mp.get_context("forkserver")
    answers = context.Queue()
    processes = [context.Process(target=one_of_two, args=(rank, store.port, str(weights), answers)) for rank in (0, 1)]
    for process in processes:
        process.start()
    try:
        assert sorted(answers.get(timeout=60) for _ in processes) == [(0, True), (1, True)]
    finally:
        for process in processes:
            process.join(timeout=20)
            process.kill()


def test_a_group_reads_the_weights_of_its_own_stage_alone(weights: Path) -> None:
    made = two_stage_model()
    loaded = [
        Renderer.load(made, LocalWeights(weights), device="cpu", placing=Placing(stages="apart"), parts=[part])
        for part in made.transformers
    ]
    asked = asked_for(made)
    whole = Renderer.load(made, LocalWeights(weights), device="cpu")
    assert [len(each.stages) for each in (*loaded, whole)] == [1, 1, 2]
    draft = loaded[0].draft(asked)
    assert same(loaded[1].enlarge(asked, draft), whole.render(asked))
    late = Draft(latents=draft.latents, noise=torch.Generator().manual_seed(asked.seed).get_state())
    assert not same(loaded[1].enlarge(asked, late), whole.render(asked)), "the noise goes on where it was left"
