"""The finisher's own process, without Ray: what too small a card is to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.codecs.foal import FoalAudioCodec, FoalVideoCodec
from model.placing import Placing
from model.request import Latents
from model.shapes import clip_shape
from pipeline.errors import GroupLost
from pipeline.finisher import Finisher
from pipeline.fleet import OUT_OF_MEMORY
from pipeline.store import StorageSettings
from pipeline.types import Clip, ClipFailure, Finished
from pipeline.worker import Workplace
from tests.clips import MEDIA, make_clip
from tests.weights import noise_model, write_weights

FULL = "CUDA out of memory (made by a test)"


@pytest.fixture
def finisher(tmp_path: Path) -> Finisher:
    model = noise_model()
    return Finisher(
        Workplace(
            model=model,
            weights=str(write_weights(tmp_path / "weights", model)),
            output=str(tmp_path / "out"),
            storage=StorageSettings(),
            media=MEDIA,
            threads=1,
            device="cpu",
            placing=Placing(decode="card"),
        )
    )


def finished(finisher: Finisher, clip: Clip) -> Finished | ClipFailure:
    video, audio = (torch.zeros(shape) for shape in (clip.shape.video_latent, clip.shape.audio_latent))
    return finisher.finish(clip, "0a1b2c3d", Latents(video=video, audio=audio))


def limit_video(monkeypatch: pytest.MonkeyPatch, latent: tuple[int, ...]) -> None:
    """Its first window is in ffmpeg already when a longer clip does not fit."""
    decode = FoalVideoCodec.decode

    def limited(self: FoalVideoCodec, given: Tensor) -> Iterator[Tensor]:
        windows = decode(self, given)
        yield next(windows)
        if given.shape[1] > latent[1]:
            raise torch.OutOfMemoryError(FULL)
        yield from windows

    monkeypatch.setattr(FoalVideoCodec, "decode", limited)


def limit_audio(monkeypatch: pytest.MonkeyPatch, latent: tuple[int, ...]) -> None:
    decode = FoalAudioCodec.decode

    def limited(self: FoalAudioCodec, given: Tensor) -> Tensor:
        if len(given) > latent[0]:
            raise torch.OutOfMemoryError(FULL)
        return decode(self, given)

    monkeypatch.setattr(FoalAudioCodec, "decode", limited)


@pytest.mark.parametrize("part", ["video", "audio"])
def test_a_clip_that_its_card_does_not_hold_fails_with_what_it_needs_and_the_finisher_lives(
    finisher: Finisher, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = (
        make_clip(
            duration_s=seconds, shape=clip_shape(noise_model(), resolution="64P", ratio="16:9", duration_s=seconds)
        )
        for seconds in (3, 5)
    )
    if part == "video":
        limit_video(monkeypatch, short.shape.video_latent)
    else:
        limit_audio(monkeypatch, short.shape.audio_latent)
    finisher.start()
    failure = finished(finisher, long)
    assert isinstance(failure, ClipFailure)
    assert (failure.stage, failure.kind, failure.retriable) == ("finish", OUT_OF_MEMORY, False)
    size = f"{long.shape.width}x{long.shape.height}, {long.shape.num_frames} frames"
    assert f"in the finisher at {size}, placing.decode=card: it needs 1.5 GB by" in failure.message
    assert "placing.decode=cpu takes no card" in failure.message
    assert FULL in failure.message
    assert isinstance(finished(finisher, short), Finished)


def test_decoders_that_its_card_does_not_hold_cost_the_finisher(
    finisher: Finisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(FULL)

    monkeypatch.setattr("model.codecs.load_module", full)
    with pytest.raises(GroupLost, match=r"loading, for the smallest clip: out of memory in the finisher.*1\.5 GB"):
        finisher.start()
