"""Delivered files are exactly what was asked for: size, frames, colours, sound, and the same bytes every time."""

import os
import re
import time
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from model.shapes import ClipShape
from pipeline.errors import EncodeError
from pipeline.media import check_probe, cut_frames, cut_waveform, encode_clip, probe_mp4
from tests.clips import MEDIA
from tests.frames import SHAPE, Array, decoded, encode, flat, moving, shape_of, sound_of, tone, windows

SHAPES = [
    shape_of(),
    shape_of(width=46, height=80, seconds=5),
    shape_of(width=160, height=92, fps=25, rate=48000),
    shape_of(width=64, height=64, fps=24, seconds=15, rate=44100),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.width}x{s.height}-{s.fps}fps-{s.sample_rate_hz}Hz")
@pytest.mark.parametrize("channels", [0, 1, 2], ids=["silent", "mono", "stereo"])
def test_tracks_are_exactly_as_long_and_large_as_asked(tmp_path: Path, shape: ClipShape, channels: int) -> None:
    waveform = tone(shape, channels=channels) if channels else None
    files = encode(tmp_path, moving(shape), shape=shape, waveform=waveform)
    assert set(files) == ({"mp4", "jpg", "wav"} if channels else {"mp4", "jpg"})
    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in files.values())
    probe = probe_mp4(files["mp4"])
    check_probe(probe, shape, bool(channels))
    assert (probe.width, probe.height, probe.num_frames) == (shape.width, shape.height, shape.num_frames)
    assert probe.fps == shape.fps
    assert probe.video_duration_s == pytest.approx(shape.num_frames / shape.fps, abs=1e-3)
    if channels:
        assert probe.audio_duration_s is not None
        assert abs(probe.audio_duration_s - probe.video_duration_s) < 1 / shape.fps
    else:
        assert (probe.audio_duration_s, probe.sample_rate_hz) == (None, None)
    assert len(decoded(files["mp4"])) == shape.num_frames, "a decoder shows every frame: nothing is hidden by an edit"


def test_frames_are_the_ones_given_in_order_and_cropped_in_the_middle(tmp_path: Path) -> None:
    given = moving(SHAPE, surplus=3, border=2)
    shown = decoded(encode(tmp_path, given, settings=replace(MEDIA, crf=1))["mp4"])
    kept = given[: SHAPE.num_frames, 1:-1].astype(int)
    smooth = (slice(None), slice(2, -2), slice(None), 1)  # green follows height alone: no chroma edges
    assert np.abs(shown.astype(int)[smooth] - kept[smooth]).mean() < 3
    for frame in (0, 17, 35):
        errors = [np.abs(shown[frame].astype(int) - kept[other]).mean() for other in range(SHAPE.num_frames)]
        assert int(np.argmin(errors)) == frame


COLOURS = {
    "red": (200, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 30, 200),
    "yellow": (240, 200, 20),
    "grey": (128, 128, 128),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
def test_colours_are_delivered_as_they_were_decoded(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    """Converted and tagged alike: BT.601 read as BT.709 would shift red by some 20 levels, a wrong range by 16."""
    files = encode(tmp_path, flat(SHAPE, colour))
    assert np.abs(decoded(files["mp4"]).mean(axis=(0, 1, 2)) - colour).max() < 3
    with Image.open(files["jpg"]) as poster:
        assert np.abs(np.asarray(poster).mean(axis=(0, 1)) - colour).max() < 3


def test_the_stream_says_how_its_colours_are_meant(tmp_path: Path) -> None:
    files = encode(tmp_path, flat(SHAPE, (1, 2, 3)))
    with av.open(str(files["mp4"])) as container:
        stream = container.streams.video[0].codec_context
        assert (stream.name, stream.pix_fmt) == ("h264", "yuv420p")
        bt709, limited = 1, 1
        assert (stream.colorspace, stream.color_primaries, stream.color_trc) == (bt709, bt709, bt709)
        assert stream.color_range == limited


def test_an_mp4_starts_with_its_index(tmp_path: Path) -> None:
    """Players over a network start before all of it has arrived."""
    content = encode(tmp_path, moving(SHAPE))["mp4"].read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_the_poster_is_the_middle_frame_at_full_size(tmp_path: Path) -> None:
    frames = np.zeros((36, 46, 80, 3), np.uint8)
    frames[18] = (20, 180, 60)
    with Image.open(encode(tmp_path, frames)["jpg"]) as poster:
        assert (poster.format, poster.size) == ("JPEG", (80, 46))
        assert np.abs(np.asarray(poster).mean(axis=(0, 1)) - (20, 180, 60)).max() < 4


def test_the_wav_is_the_waveform_and_nothing_else(tmp_path: Path) -> None:
    waveform = tone(SHAPE, channels=2)
    waveform[1] *= -1.9  # beyond full scale nowhere but here at its peaks
    waveform[1, 100] = 3.0
    path = encode(tmp_path, moving(SHAPE), waveform=waveform)["wav"]
    with wave.open(str(path)) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (2, 2, 24000)
        assert sound.getnframes() == SHAPE.num_samples
        samples = np.frombuffer(sound.readframes(SHAPE.num_samples), "<i2").reshape(-1, 2).T
    assert np.abs(samples[0] / 32767 - waveform[0, : SHAPE.num_samples]).max() < 1 / 32767
    assert samples[1, 100] == 32767, "clipped, not wrapped around"


def test_the_mp4s_sound_is_the_waveform_in_step(tmp_path: Path) -> None:
    """A click stays where it was: the encoder's own delay is taken back."""
    waveform = np.zeros((1, SHAPE.num_samples), np.float32)
    waveform[0, 24000:24200] = 0.9
    heard = sound_of(encode(tmp_path, moving(SHAPE), waveform=waveform)["mp4"])[0]
    loud = np.flatnonzero(np.abs(heard) > 0.45)
    assert abs(int(loud[0]) - 24000) < 24, "within a millisecond"


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frames, waveform = moving(SHAPE), tone(SHAPE)
    contents = []
    for folder in (tmp_path / "one", Path("http:")):  # not an address, though it looks like the beginning of one
        folder.mkdir()
        files = encode(folder, frames, waveform=waveform, stem=folder.name[:3])
        contents.append({kind: path.read_bytes() for kind, path in files.items()})
        time.sleep(1.1)  # mp4 keeps time in seconds
    assert contents[0] == contents[1]
    for kind, content in contents[0].items():
        assert not re.search(rb"Lav[cf]\d", content), f"{kind} names the version of its encoder"


def test_how_frames_are_cut_into_windows_does_not_matter(tmp_path: Path) -> None:
    frames = moving(SHAPE)
    one = encode_clip(iter([frames]), shape=SHAPE, waveform=None, folder=tmp_path, stem="a", settings=MEDIA)
    single = (frames[n : n + 1] for n in range(len(frames)))
    other = encode_clip(single, shape=SHAPE, waveform=None, folder=tmp_path, stem="b", settings=MEDIA)
    assert one["mp4"].read_bytes() == other["mp4"].read_bytes()


@pytest.mark.parametrize("name", ["crf", "preset", "audio_bitrate_bps", "poster_quality"])
def test_every_setting_reaches_the_files(tmp_path: Path, name: str) -> None:
    changed: dict[str, Any] = {"crf": 40, "preset": "ultrafast", "audio_bitrate_bps": 32_000, "poster_quality": 31}
    kind = "jpg" if name == "poster_quality" else "mp4"
    sizes = []
    for stem, settings in (("a", MEDIA), ("b", replace(MEDIA, **{name: changed[name]}))):
        sizes.append(encode(tmp_path, moving(SHAPE), waveform=tone(SHAPE), stem=stem, settings=settings)[kind].stat())
    assert sizes[0].st_size != sizes[1].st_size


def test_frames_are_taken_as_they_come(tmp_path: Path) -> None:
    """The rest of a clip is decoded while its beginning is encoded; what is not needed is not decoded at all."""
    large = shape_of(width=640, height=360, seconds=5)
    taken: list[int] = []

    def frames() -> Iterator[Array]:
        for number in range(100):
            taken.append(number)
            yield np.full((1, 360, 640, 3), number, np.uint8)

    encode_clip(frames(), shape=large, waveform=None, folder=tmp_path, stem="a", settings=MEDIA)
    assert len(taken) == large.num_frames


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((35, 46, 80, 3), np.uint8), "the video codec gave 35 frames, expected 36"),
        (np.zeros((0, 46, 80, 3), np.uint8), "the video codec gave 0 frames, expected 36"),
        (np.zeros((36, 44, 80, 3), np.uint8), "decoded frames are 80x44, expected at least 80x46"),
        (np.zeros((36, 46, 78, 3), np.uint8), "decoded frames are 78x46, expected at least 80x46"),
        (np.zeros((36, 46, 80, 3), np.float32), "decoded frames are float32"),
        (np.zeros((36, 3, 46, 80), np.uint8), r"decoded frames are uint8 \(7, 3, 46, 80\)"),
    ],
)
def test_frames_that_are_not_what_they_must_be(tmp_path: Path, frames: Array, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        encode(tmp_path, frames, waveform=tone(SHAPE))
    assert os.listdir(tmp_path) == [], "nothing is left that looks finished"


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros((1, 60000), np.float32), "the audio codec gave 60000 samples, expected 72000"),
        (np.zeros(72000, np.float32), r"the waveform is \(72000,\), expected \[1 or 2 channels, samples\]"),
        (np.zeros((6, 72000), np.float32), r"the waveform is \(6, 72000\)"),
        (np.full((1, 72000), np.nan, np.float32), "not finite"),
    ],
)
def test_sound_that_is_not_what_it_must_be(tmp_path: Path, waveform: Array, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        encode(tmp_path, moving(SHAPE), waveform=waveform)
    assert os.listdir(tmp_path) == []


def test_sound_short_by_one_latent_ends_in_silence() -> None:
    one_latent = 2000  # 24000 Hz, 12 latents a second
    cut = cut_waveform(np.ones((1, SHAPE.num_samples - one_latent), np.float32), shape=SHAPE)
    assert cut.shape == (1, SHAPE.num_samples)
    assert cut[0, -one_latent:].tolist() == [0.0] * one_latent
    assert cut[0, -one_latent - 1] == 1.0
    with pytest.raises(EncodeError, match="69999 samples"):
        cut_waveform(np.ones((1, SHAPE.num_samples - one_latent - 1), np.float32), shape=SHAPE)


def test_a_file_cut_short_is_not_accepted(tmp_path: Path) -> None:
    path = encode(tmp_path, moving(SHAPE))["mp4"]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(EncodeError):
        check_probe(probe_mp4(path), SHAPE, False)
    path.write_bytes(b"nothing")
    with pytest.raises(EncodeError, match=r"clip\.mp4 cannot be read back"):
        probe_mp4(path)
    with pytest.raises(EncodeError, match="has no video track"):
        probe_mp4(encode(tmp_path, moving(SHAPE), waveform=tone(SHAPE))["wav"])


WRONG: list[tuple[dict[str, Any], bool, str]] = [
    ({"width": 82}, True, "width 82, expected 80"),
    ({"height": 48}, True, "height 48, expected 46"),
    ({"num_frames": 35}, True, "frames 35, expected 36"),
    ({"fps": 25.0}, True, "frames a second 25.0, expected 12.0"),
    ({"sample_rate_hz": 48000}, True, "sample rate 48000, expected 24000"),
    ({"audio_duration_s": 2.9}, True, "audio track of 2.900 s, expected 3.000 s within a frame"),
    ({"video_duration_s": 3.1}, True, "video track of 3.100 s, expected 3.000 s within a frame"),
    ({"audio_duration_s": None, "sample_rate_hz": None}, True, "sample rate None, expected 24000"),
    ({}, False, "sample rate 24000, expected None"),
]


@pytest.mark.parametrize(("change", "audio", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_a_probe_that_differs_is_refused(tmp_path: Path, change: dict[str, Any], audio: bool, message: str) -> None:
    probe = probe_mp4(encode(tmp_path, moving(SHAPE), waveform=tone(SHAPE))["mp4"])
    check_probe(probe, SHAPE, True)
    with pytest.raises(EncodeError, match=message):
        check_probe(replace(probe, **change), SHAPE, audio)


def test_cutting_keeps_the_middle() -> None:
    frames = np.zeros((40, 50, 90, 3), np.uint8)
    frames[:, 2:48, 5:85] = 255
    cut = np.concatenate(list(cut_frames(windows(frames), shape=SHAPE)))
    assert cut.shape == (36, 46, 80, 3)
    assert cut.min() == 255
