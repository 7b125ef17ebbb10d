"""Given sounds: what a manifest's audio_in cells are, and their samples later. Decoded by PyAV, a bounded part of them.

A file's kind is told by its first bytes and ffmpeg is held to it: among its readers are some that open what a file
names. Mixing, resampling and cutting are `model.sounds`'s.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import av
import av.error
import numpy as np
import numpy.typing as npt

from pipeline.errors import ClipError
from pipeline.inputs.access import InputAccess
from pipeline.inputs.check import check_bytes
from pipeline.inputs.files import InputReader, load_bytes, sha256
from pipeline.inputs.header import BadInput
from pipeline.redact import redacted
from pipeline.store import ObjectChanged, StorageSettings
from pipeline.types import SoundRef

KINDS = (  # name, first bytes, ffmpeg's reader
    ("WAV", re.compile(rb"RIFF....WAVE", re.DOTALL), "wav"),
    ("FLAC", re.compile(rb"fLaC"), "flac"),
    ("Ogg", re.compile(rb"OggS"), "ogg"),
    ("MP4", re.compile(rb"....ftyp", re.DOTALL), "mp4"),
    ("AAC", re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), "aac"),
    ("MP3", re.compile(rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]"), "mp3"),
)
NAMES = "WAV, FLAC, MP3, AAC, MP4 (M4A) or Ogg (Vorbis, Opus) file"
COUNTED_S = 30  # no clip is as long: what follows is neither decoded nor counted
RATES_HZ = (8_000, 192_000)
MAX_CHANNELS = 8
FULL_SCALE = {"u1": (128.0, 128.0), "i2": (0.0, 2.0**15), "i4": (0.0, 2.0**31)}  # kind of sample -> (middle, most)


@dataclass(frozen=True, kw_only=True)
class Samples:
    waveform: npt.NDArray[np.float32]  # [channels, samples], -1..1 and in files of floats beyond
    rate_hz: int

    @property
    def seconds(self) -> float:
        return float(self.waveform.shape[1] / self.rate_hz)


class SoundReader(InputReader[SoundRef]):
    """Of each sound the first 30 s are decoded: what cannot be is found before a GPU is taken."""

    def held(self, data: bytes, *, uri: str | None) -> SoundRef:
        check_bytes(len(data))
        seconds = decode_sound(data, longest_s=COUNTED_S).seconds
        return SoundRef(uri=uri, data=None if uri is not None else data, identity=sha256(data), seconds=seconds)


def load_sound(ref: SoundRef, *, longest_s: int, storage: StorageSettings, access: InputAccess) -> Samples:
    """The beginning of a clip's sound, wherever it is, if the rules allow it.

    ClipError if it cannot be had or used, or has changed since the manifest was read.
    """
    name = "the sound" if ref.uri is None else redacted(ref.uri)
    try:
        return decode_sound(load_bytes(ref, storage=storage, access=access), longest_s=longest_s)
    except BadInput as error:
        raise ClipError(f"{name} cannot be used: {error}") from error
    except ObjectChanged as error:
        raise ClipError(f"{name} has changed since the manifest was read") from error


def decode_sound(data: bytes, *, longest_s: int) -> Samples:
    """The first seconds of a file's first sound track. BadInput if there is none, or it is damaged."""
    kind, reader = _kind(data)
    pieces: list[npt.NDArray[np.float32]] = []
    form = (0, 0)  # channels, samples a second
    count = 0
    try:
        for frame in _frames(data, kind, reader):
            own = (frame.layout.nb_channels, frame.rate)
            form = form if pieces else _checked(own, kind)
            if own != form:
                raise BadInput(f"a {kind} that changes from {_said(form)} to {_said(own)}", "one of a kind throughout")
            pieces.append(_floats(frame))
            count += pieces[-1].shape[1]
            if count >= longest_s * form[1]:
                break
    except (av.error.FFmpegError, ValueError, UnicodeError) as error:
        raise BadInput(f"a {kind} that cannot be decoded ({_reason(error)})", "a whole one") from error
    if not count:
        raise BadInput(f"a {kind} without a sample of sound", "some sound")
    waveform = np.concatenate(pieces, axis=1)[:, : longest_s * form[1]]
    if not np.isfinite(waveform).all():
        raise BadInput(f"a {kind} with samples that are not finite", "finite ones")
    return Samples(waveform=waveform, rate_hz=form[1])


def _frames(data: bytes, kind: str, reader: str) -> Iterator[av.AudioFrame]:
    with av.open(io.BytesIO(data), "r", format=reader, metadata_errors="replace") as container:
        if not container.streams.audio:
            raise BadInput(f"a {kind} without a sound track", "one with it")
        yield from container.decode(container.streams.audio[0])


def _floats(frame: av.AudioFrame) -> npt.NDArray[np.float32]:
    """[channels, samples]"""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    middle, most = FULL_SCALE.get(values.dtype.str[1:], (0.0, 1.0))
    return ((values.astype(np.float64) - middle) / most).astype(np.float32)


def _kind(data: bytes) -> tuple[str, str]:
    for name, start, reader in KINDS:
        if start.match(data):
            return name, reader
    raise BadInput(f"{len(data)} bytes of no known kind", f"a {NAMES}")


def _checked(form: tuple[int, int], kind: str) -> tuple[int, int]:
    channels, rate_hz = form
    if not 1 <= channels <= MAX_CHANNELS or not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        least, most = RATES_HZ
        raise BadInput(f"a {kind} of {_said(form)}", f"1 to {MAX_CHANNELS} channels at {least} to {most} Hz")
    return form


def _said(form: tuple[int, int]) -> str:
    return f"{form[0]} channels at {form[1]} Hz"


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
