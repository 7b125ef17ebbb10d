"""Sound files for tests, of every kind that is taken, made by the codecs that PyAV carries."""

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Waveform = npt.NDArray[np.float32]  # [channels, samples]
CODECS = {  # ending -> (container, codec, form of its samples)
    "wav": ("wav", "pcm_s16le", "s16"),
    "float.wav": ("wav", "pcm_f32le", "flt"),
    "flac": ("flac", "flac", "s16"),
    "mp3": ("mp3", "libmp3lame", "fltp"),
    "aac": ("adts", "aac", "fltp"),
    "m4a": ("ipod", "aac", "fltp"),
    "opus": ("ogg", "libopus", "flt"),
}


def tone(
    seconds: float, *, rate_hz: int = 48_000, hz: float = 440.0, channels: int = 2, level: float = 0.5
) -> Waveform:
    """A sine; each channel after the first is half as loud as the one before."""
    wave = level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)
    return np.stack([wave * 0.5**n for n in range(channels)]).astype(np.float32)


def beeps(seconds: float, times_s: list[float], *, rate_hz: int = 24_000, hz: float = 1600.0) -> Waveform:
    """Bursts that fade within 0.12 s, as the foal's world knows them."""
    since = np.arange(round(seconds * rate_hz))[None] / rate_hz - np.array(times_s)[:, None]
    envelope = ((1 - since / 0.12).clip(0, 1) * (since >= 0)).max(axis=0)
    wave: Waveform = (envelope * tone(seconds, rate_hz=rate_hz, hz=hz, channels=1, level=0.4)).astype(np.float32)
    return wave


def sound_file(kind: str, waveform: Waveform, *, rate_hz: int = 48_000) -> bytes:
    container_name, codec, form = CODECS[kind]
    buffer = io.BytesIO()
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(waveform)]
    with av.open(buffer, "w", format=container_name) as container:
        stream: Any = container.add_stream(codec, rate=rate_hz, layout=layout)
        stream.format = form
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform), format="fltp", layout=layout)
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(format=form, layout=layout, rate=rate_hz)
        fifo = av.AudioFifo()
        for each in resampler.resample(frame):
            each.pts = None
            fifo.write(each)
        written = 0
        while piece := fifo.read(stream.codec_context.frame_size or 1024) or fifo.read(0, partial=True):
            piece.pts, piece.time_base, written = written, Fraction(1, rate_hz), written + piece.samples
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return buffer.getvalue()
