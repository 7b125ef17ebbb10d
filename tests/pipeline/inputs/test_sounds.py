"""Given sounds: every kind is decoded, what cannot be used is found before anything starts; rules are the images'."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.config import DistilledConfig
from pipeline.errors import ClipError
from pipeline.inputs.access import InputAccess
from pipeline.inputs.header import BadInput
from pipeline.inputs.sounds import SoundReader, decode_sound, load_sound
from pipeline.store import open_store
from pipeline.types import SoundRef
from tests.image_server import body, in_turn, serve
from tests.manifests import MODEL, RULES, STORAGE, findings, only, read, write
from tests.sounds import CODECS, sound_file, tone

FADED = dict.fromkeys(("mp3", "m4a", "aac", "opus"), 0.07)  # how far a coded tone may be from what went in


@pytest.mark.parametrize("kind", CODECS)
def test_every_kind_is_decoded_to_what_went_in(kind: str) -> None:
    given = tone(3.2)
    found = decode_sound(sound_file(kind, given), longest_s=30)
    assert (found.rate_hz, found.waveform.dtype.name, len(found.waveform)) == (48_000, "float32", 2)
    assert abs(found.seconds - 3.2) < 0.03
    late = 1024 if kind == "aac" else 0  # it cannot say that its first frame is none of the sound
    got, wanted = found.waveform[:, 2_000 + late : 150_000 + late], given[:, 2_000:150_000]
    assert np.linalg.norm(got - wanted) / np.linalg.norm(wanted) < FADED.get(kind, 1e-4)


def test_only_what_is_asked_for_is_decoded() -> None:
    assert decode_sound(sound_file("flac", tone(5)), longest_s=2).waveform.shape == (2, 96_000)


SILENT = tone(0.2, level=0.0)
HUGE = np.full((1, 9_600), np.inf, np.float32)
HEADER = sound_file("wav", SILENT).partition(b"data")[0] + b"data" + bytes(4)
LOW = sound_file("wav", tone(1, rate_hz=4_000), rate_hz=4_000)
BAD: list[tuple[str, bytes, str]] = [
    ("empty", b"", "0 bytes of no known kind, expected a WAV, FLAC, MP3, AAC, MP4 (M4A) or Ogg (Vorbis, Opus) file"),
    ("text", b"#EXTM3U\nfile:///etc/passwd", "26 bytes of no known kind"),
    ("playlist", b"ffconcat version 1.0\nfile a.wav", "31 bytes of no known kind"),
    ("header alone", HEADER, "a WAV without a sample of sound, expected some sound"),
    ("broken flac", sound_file("flac", tone(1))[:60], "a FLAC "),
    ("broken m4a", sound_file("m4a", tone(1))[:2000], "a MP4 that cannot be decoded"),
    ("not a WAV", b"RIFF0000WAVE" + b"\7" * 400, "a WAV "),
    ("not finite", sound_file("float.wav", HUGE), "a WAV with samples that are not finite, expected finite ones"),
    (
        "low",
        LOW,
        "a WAV of 2 channels at 4000 Hz, expected 1 to 8",
    ),
    ("heavy", sound_file("wav", SILENT) + bytes(20_000_001), "20.0 MB, expected at most 20 MB"),
]


@pytest.mark.parametrize(("content", "message"), [each[1:] for each in BAD], ids=[each[0] for each in BAD])
def test_sounds_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    column = [{"bytes": content, "path": "a.wav"}, {"bytes": None, "path": "a.wav"}]
    inline, named = findings(write(tmp_path, {"prompt": ["a", "b"], "audio_in": column}))
    assert inline.startswith("row 0, column audio_in: got ")
    assert message in inline
    assert named.startswith("row 1, column audio_in: got 'a.wav', ")
    assert message in named


def test_a_sound_beside_the_manifest_is_part_of_a_clip_and_of_its_name(tmp_path: Path) -> None:
    for name, hz in (("a.flac", 440.0), ("copy.flac", 440.0), ("other.flac", 441.0)):
        (tmp_path / name).write_bytes(sound_file("flac", tone(3.5, hz=hz)))
    columns = {"prompt": ["p"] * 4, "audio_in": ["a.flac", "copy.flac", "other.flac", None]}
    manifest = read(write(tmp_path, columns))
    clips = list(manifest.clips)
    first, second, third, without = (clip.clip_id for clip in clips)
    assert second == f"{first}-2"
    assert len({first, third, without}) == 3
    assert len({manifest.settings_hash(clip) for clip in clips}) == 4
    sound = clips[0].audio_in
    assert sound is not None
    assert (sound.uri, sound.data, sound.seconds) == (f"{tmp_path}/a.flac", None, 3.5)
    assert clips[3].audio_in is None
    access = InputAccess(roots=(str(tmp_path),))
    assert load_sound(sound, longest_s=3, storage=STORAGE, access=access).waveform.shape == (2, 144_000)
    (tmp_path / "a.flac").write_bytes(sound_file("flac", tone(3.5, hz=442.0)))
    with pytest.raises(ClipError, match=r"a\.flac has changed since the manifest was read"):
        load_sound(sound, longest_s=3, storage=STORAGE, access=access)
    with pytest.raises(ClipError, match="expected a file below the manifest's own folder"):
        load_sound(sound, longest_s=3, storage=STORAGE, access=InputAccess())


def test_a_sound_of_the_manifest_itself(tmp_path: Path) -> None:
    data = sound_file("mp3", tone(3))
    cells: list[Any] = [{"bytes": data, "path": None}] * 2
    manifest = read(write(tmp_path, {"prompt": ["a", "b"], "audio_in": cells}))
    assert [each.data for each in manifest.given.sounds] == [None]
    for clip in manifest.clips:
        assert clip.audio_in is not None
        assert clip.audio_in.data == data
    assert only(read(write(tmp_path, {"prompt": ["a"], "audio_in": [{"bytes": None, "path": None}]}))).audio_in is None


def test_a_sound_must_last_as_long_as_its_clip(tmp_path: Path) -> None:
    for seconds in (2.8, 2.95, 3.0, 40.0):
        (tmp_path / f"{seconds}.flac").write_bytes(sound_file("flac", tone(seconds, rate_hz=8_000), rate_hz=8_000))
    columns = {"prompt": ["p"] * 5, "duration": [3] * 4 + [5]}
    columns["audio_in"] = [f"{seconds}.flac" for seconds in (2.8, 2.95, 3.0, 40.0, 3.0)]
    assert findings(write(tmp_path, columns)) == [
        f"row {row}, column audio_in: got '{name}', {name[:3]}0 s long, "
        f"expected at least the {asked} s of the clip (a longer one is cut)"
        for row, name, asked in ((0, "2.8.flac", 3), (4, "3.0.flac", 5))
    ]


def test_a_row_or_a_model_without_a_use_for_a_sound(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(sound_file("wav", tone(3)))
    silent = write(tmp_path, {"prompt": ["p"], "audio_in": ["a.wav"], "audio": [False]})
    expected = "nothing where audio is false: a clip without sound follows none"
    assert findings(silent) == [f"row 0, column audio_in: got 'a.wav', expected {expected}"]
    distilled = replace(MODEL, first_stage="distilled", distilled=DistilledConfig(steps=8))
    path = write(tmp_path, {"prompt": ["p"], "audio_in": ["a.wav"]})
    expected = "nothing: model small follows a given sound in its guided stage (model.first_stage=base)"
    assert findings(path, rules=replace(RULES, model=distilled)) == [
        f"row 0, column audio_in: got 'a.wav', expected {expected}"
    ]


def test_sounds_in_a_bucket_and_on_the_web(moto_s3: str) -> None:
    data, other = sound_file("m4a", tone(3)), sound_file("m4a", tone(3, hz=500))
    store = open_store(f"{moto_s3}/in", STORAGE)
    store.put("a.m4a", data)
    store.put("heavy.wav", sound_file("wav", SILENT) + bytes(20_000_001))
    found = SoundReader([f"{moto_s3}/in"], storage=STORAGE).read_all(["a.m4a", "gone.m4a", "heavy.wav", "../x.wav"])
    stored = found["a.m4a"]
    assert isinstance(stored, SoundRef)
    assert str(found["gone.m4a"]) == f"got 'gone.m4a', expected a file that is there ({moto_s3}/in/gone.m4a is not)"
    assert str(found["heavy.wav"]).startswith("got 'heavy.wav', 20.0 MB")
    assert isinstance(found["../x.wav"], BadInput)
    access = InputAccess(roots=(moto_s3,))
    assert load_sound(stored, longest_s=3, storage=STORAGE, access=access).seconds == 3
    store.put("a.m4a", other)
    with pytest.raises(ClipError, match=r"in/a\.m4a has changed since the manifest was read"):
        load_sound(stored, longest_s=3, storage=STORAGE, access=access)
    with serve() as server:
        server.answers["/a.m4a"] = in_turn(body(data), body(data), body(other))
        access = InputAccess(hosts=(server.host,), allow_private=True)
        url = server.url("/a.m4a?key=5ec2e7")
        served = SoundReader(["/nowhere"], storage=STORAGE, access=access).read_all([url])[url]
        assert isinstance(served, SoundRef)
        assert load_sound(served, longest_s=3, storage=STORAGE, access=access).seconds == 3
        with pytest.raises(ClipError, match="has changed since the manifest was read") as caught:
            load_sound(served, longest_s=3, storage=STORAGE, access=access)
        assert "5ec2e7" not in str(caught.value)
