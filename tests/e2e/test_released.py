"""A tiny model in the released layout through the command line, on two ranks: every stage, every part around it.

Two runs share the four Transformers: base and 540p_sr, distilled and 1080p_sr; each renders at 256P too.
"""

import io
import wave
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from model.codecs import build_image_encoder, build_video_decoder
from model.images import prepare_image
from model.weights import LocalWeights
from tests.e2e.looks import frames_of
from tests.e2e.runs import Caller, digests, records, said, write_manifest
from tests.e2e.test_delivery import length
from tests.released import LARGE, RESOLUTIONS, SMALL, released_model, released_words
from tests.sounds import sound_file, tone

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SECONDS, FPS, RATE_HZ = 3, 25, 44_100
BRIGHTNESS = np.array([0.2126, 0.7152, 0.0722])  # colours have half the resolution in an mp4
SONG_HZ = 500.0
SONG = tone(SECONDS + 1, hz=SONG_HZ)  # 48 kHz, a second longer than its clips
STAGES = {"base": "magihuman_540p", "distilled": "magihuman_1080p"}
PLACED = {"base": ("placing=swapped",), "distilled": ("placing.stages=disk", "placing.text=disk")}


@dataclass(frozen=True)
class Rendered:
    """One run's output, that every test may read and none may change."""

    model: str
    output: Path
    rows: dict[str, dict[str, Any]]
    again: Callable[[], str]  # runs the same command once more; what it printed

    def files(self, clip_id: str) -> dict[str, Path]:
        (record,) = (each for each in records(self.output).values() if each["clip_id"] == clip_id)
        return {kind: self.output / file["name"] for kind, file in record["files"].items()}


def picture(*, bright: bool) -> bytes:
    """One is light on its left, the other on its right."""
    ramp = np.tile(np.linspace(0, 255, 640).astype(np.uint8), (360, 1))
    red = ramp[:, ::-1] if bright else ramp
    buffer = io.BytesIO()
    Image.fromarray(np.stack([red, red // 2, 255 - red], axis=-1)).save(buffer, "PNG")
    return buffer.getvalue()


def rows_of(model: str) -> list[dict[str, Any]]:
    row = {"prompt": "Rain falls and a bell rings.", "duration": SECONDS, "seed": 5}
    large = {"resolution": RESOLUTIONS[model]}
    small = {"resolution": "256P"}
    heard = [
        row | small | {"clip_id": "small-s", "audio_in": "song.m4a"},
        row | large | {"clip_id": "large-s", "audio_in": "song.m4a", "image": "a.png"},
    ]
    return [
        row | small | {"clip_id": "small"},
        row | small | {"clip_id": "small-a", "image": "a.png"},
        row | small | {"clip_id": "small-b", "image": "b.png", "audio": False},
        row | large | {"clip_id": "large"},
        row | large | {"clip_id": "large-a", "image": "a.png"},
        row | large | {"clip_id": "large-b", "image": "b.png", "audio": False},
        *(heard if model == STAGES["base"] else []),
    ]


@pytest.fixture(scope="module", params=STAGES)
def rendered(
    request: pytest.FixtureRequest, caller: Caller, released_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Rendered:
    return render(request.param, caller, released_weights, tmp_path_factory)


DONE: dict[str, Rendered] = {}


def render(stage: str, caller: Caller, weights: Path, factory: pytest.TempPathFactory) -> Rendered:
    """Once a session: the fixture and the comparison of the two runs want the same outputs."""
    if stage in DONE:
        return DONE[stage]
    folder, model = factory.mktemp(stage), STAGES[stage]
    rows = rows_of(model)
    (folder / "a.png").write_bytes(picture(bright=False))
    (folder / "b.png").write_bytes(picture(bright=True))
    (folder / "song.m4a").write_bytes(sound_file("m4a", SONG))
    manifest = write_manifest(folder / "manifest.parquet", rows)
    words = (f"manifest={manifest}", f"output={folder / 'out'}", f"weights={weights}", "parallel=tp2", *PLACED[stage])

    def run() -> str:
        done = caller.run("render", *words, *released_words(model, first_stage=stage))
        assert done.returncode == 0, said(done)
        return done.stdout

    assert f"{len(rows)} clips: {len(rows)} rendered" in run()
    DONE[stage] = Rendered(model=model, output=folder / "out", rows={row["clip_id"]: row for row in rows}, again=run)
    return DONE[stage]


def test_every_clip_is_exactly_as_large_and_long_as_asked_for(rendered: Rendered) -> None:
    for clip_id, row in rendered.rows.items():
        size = SMALL if row["resolution"] == "256P" else LARGE
        files = rendered.files(clip_id)
        with av.open(str(files["mp4"])) as mp4:
            video = mp4.streams.video[0]
            assert (video.codec_context.name, video.width, video.height) == ("h264", size["width"], size["height"])
            assert sum(1 for _ in mp4.decode(video)) == SECONDS * FPS
            assert video.average_rate == FPS
            assert length(video) == SECONDS
            tracks = mp4.streams.audio
            assert len(tracks) == (0 if row.get("audio") is False else 1)
            for track in tracks:
                assert (track.codec_context.name, track.rate, track.channels) == ("aac", RATE_HZ, 2)
                assert abs(length(track) - SECONDS) <= Fraction(1, FPS)
        assert ("wav" in files) == (row.get("audio") is not False)


def test_the_sound_is_stereo_and_there(rendered: Rendered) -> None:
    with wave.open(str(rendered.files("large")["wav"])) as wav:
        assert (wav.getframerate(), wav.getnchannels(), wav.getsampwidth()) == (RATE_HZ, 2, 2)
        assert wav.getnframes() == SECONDS * RATE_HZ
        samples = np.frombuffer(wav.readframes(wav.getnframes()), np.int16).astype(float)
    assert 100 < samples.std() < 20_000


def test_a_given_sound_is_what_is_heard_and_what_the_video_is_rendered_to(
    caller: Caller, released_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The guided run holds it; without it the same row has a sound, and frames, of its own."""
    rendered = render("base", caller, released_weights, tmp_path_factory)
    wanted = tone(SECONDS, rate_hz=RATE_HZ, hz=SONG_HZ)
    for clip_id in ("small-s", "large-s"):
        with wave.open(str(rendered.files(clip_id)["wav"])) as wav:
            assert (wav.getframerate(), wav.getnchannels()) == (RATE_HZ, 2)
            samples = np.frombuffer(wav.readframes(wav.getnframes()), np.int16).reshape(-1, 2).T / 32767
        assert samples.shape == wanted.shape
        assert np.linalg.norm(samples - wanted) < 0.1 * np.linalg.norm(wanted)
        own = frames_of(rendered.files("small" if clip_id == "small-s" else "large-a")["mp4"])
        assert np.abs(frames_of(rendered.files(clip_id)["mp4"]) - own).mean() > 0.5
        with av.open(str(rendered.files(clip_id)["mp4"])) as mp4:
            track = np.concatenate([each.to_ndarray() for each in mp4.decode(audio=0)], axis=1)
        assert np.abs(track[1, 20_000:60_000]).max() == pytest.approx(0.25, abs=0.05)  # half as loud as the first


def test_clips_move_and_none_is_flat(rendered: Rendered) -> None:
    for clip_id in rendered.rows:
        frames = frames_of(rendered.files(clip_id)["mp4"])
        assert frames.std() > 5
        assert np.abs(np.diff(frames[::25], axis=0)).mean() > 1


@pytest.mark.parametrize("resolution", ["small", "large"])
def test_the_first_frame_is_the_given_image(rendered: Rendered, resolution: str, released_weights: Path) -> None:
    """What two images change in the first frame is what encoding and decoding them changes there."""
    size = SMALL if resolution == "small" else LARGE
    delivered = [frames_of(rendered.files(f"{resolution}-{name}")["mp4"])[0] @ BRIGHTNESS for name in "ab"]
    wanted = [first_frame(rendered.model, picture(bright=bright), size, released_weights) for bright in (False, True)]
    got, expected = (np.subtract(*pair).ravel() for pair in (delivered, wanted))
    likeness = got @ expected / np.linalg.norm(got) / np.linalg.norm(expected)
    assert likeness > 0.6


def first_frame(name: str, image: bytes, size: dict[str, int], weights: Path) -> Any:
    """Brightness of the image's latent, decoded alone and cropped, [height, width]."""
    model, reader = released_model(name, first_stage="base"), LocalWeights(weights)
    height, width = (size[f"latent_{side}"] * model.spatial_scale for side in ("height", "width"))
    latent = build_image_encoder(model, reader).encode_image(prepare_image(image, height=height, width=width))
    frames = next(iter(build_video_decoder(model, reader).decode(latent)))
    top, left = (height - size["height"]) // 2, (width - size["width"]) // 2
    return frames[0, top : top + size["height"], left : left + size["width"]].to(torch.float64).numpy() @ BRIGHTNESS


def test_stages_on_groups_of_their_own_make_the_same_bytes(
    caller: Caller, released_weights: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """A clip of one stage, and one of both with a picture and a given sound; two ranks a group."""
    rendered = render("base", caller, released_weights, tmp_path_factory)
    words = (f"manifest={rendered.output.parent / 'manifest.parquet'}", f"output={tmp_path}", "placing=apart")
    more = (f"weights={released_weights}", "parallel=tp2", "where=clip_id in ('small', 'large-s')")
    done = caller.run("render", *words, *more, *released_words(rendered.model, first_stage="base"))
    assert done.returncode == 0, said(done)
    made, known = digests(tmp_path), digests(rendered.output)
    assert made == {clip_id: known[clip_id] for clip_id in ("small", "large-s")}
    assert records(tmp_path).keys() < records(rendered.output).keys(), "where stages lie is no part of a clip's name"
    seconds = {each["clip_id"]: each["seconds"] for each in records(tmp_path).values()}
    assert seconds["large-s"]["enlarge"] > 0
    assert "enlarge" not in seconds["small"]


def test_the_same_command_again_renders_nothing(
    caller: Caller, released_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rendered = render("distilled", caller, released_weights, tmp_path_factory)
    before = digests(rendered.output)
    assert "6 clips: 0 rendered, 6 done before" in rendered.again()
    assert digests(rendered.output) == before


def test_other_weights_make_another_clip(
    caller: Caller, released_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The row is the same at 256P, and so are all parts but base/ and distill/ and what is done with them."""
    base, distilled = (render(stage, caller, released_weights, tmp_path_factory) for stage in STAGES)
    assert base.rows["small"] == distilled.rows["small"]
    assert digests(base.output)["small"]["mp4"] != digests(distilled.output)["small"]["mp4"]
    assert digests(base.output)["small"]["wav"] != digests(distilled.output)["small"]["wav"]
