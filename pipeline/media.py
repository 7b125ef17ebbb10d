"""From decoded frames and a waveform to delivered files on local disk, and what is in them. Frames are never all held.

Owns the last cut: to the size, number of frames and number of samples that were asked for.
"""

import wave
from collections.abc import Iterator
from pathlib import Path

import av
import av.error
import numpy as np
import numpy.typing as npt

from model.shapes import ClipShape
from pipeline.errors import EncodeError
from pipeline.ffmpeg import FrameEncoder, Outputs
from pipeline.types import MediaSettings, Probe

Frames = npt.NDArray[np.uint8]  # [n, height, width, 3], RGB
Waveform = npt.NDArray[np.float32]  # [channels, samples] in -1..1
STALL_S = 120.0  # 1080p at preset slow takes well under a second a frame


def encode_clip(
    frames: Iterator[Frames],
    *,
    shape: ClipShape,
    waveform: Waveform | None,
    folder: Path,
    stem: str,
    settings: MediaSettings,
    stall_s: float = STALL_S,
) -> dict[str, Path]:
    """Writes `stem`.mp4, .jpg and, with sound, .wav into `folder`; the same input gives the same bytes.

    Frames may be larger than the shape (cropped symmetrically) and more than asked for (the rest is not even decoded).
    On any error none of the files is left.
    """
    wav = folder / f"{stem}.wav" if waveform is not None else None
    outputs = Outputs(mp4=folder / f"{stem}.mp4", jpg=folder / f"{stem}.jpg", wav=wav)
    files = {"mp4": outputs.mp4, "jpg": outputs.jpg} | ({"wav": wav} if wav else {})
    try:
        if waveform is not None and wav is not None:
            write_wav(wav, waveform, shape=shape)
        with FrameEncoder(outputs, shape=shape, settings=settings, stall_s=stall_s) as encoder:
            for window in cut_frames(frames, shape=shape):
                encoder.write(window)
            encoder.finish()
    except BaseException:
        for path in files.values():
            path.unlink(missing_ok=True)
        raise
    return files


def cut_frames(frames: Iterator[Frames], *, shape: ClipShape) -> Iterator[Frames]:
    """The delivered frames: cropped, contiguous, exactly `shape.num_frames` of them. EncodeError if there are fewer."""
    missing = shape.num_frames
    for window in frames:
        if window.dtype != np.uint8 or window.ndim != 4 or window.shape[3] != 3:
            raise EncodeError(f"decoded frames are {window.dtype} {window.shape}, expected uint8 [n, height, width, 3]")
        _, height, width, _ = window.shape
        if height < shape.height or width < shape.width:
            raise EncodeError(f"decoded frames are {width}x{height}, expected at least {shape.width}x{shape.height}")
        top, left = (height - shape.height) // 2, (width - shape.width) // 2
        cut = window[:missing, top : top + shape.height, left : left + shape.width]
        missing -= len(cut)
        yield np.ascontiguousarray(cut)
        if missing == 0:
            return
    raise EncodeError(f"the video codec gave {shape.num_frames - missing} frames, expected {shape.num_frames}")


def cut_waveform(waveform: Waveform, *, shape: ClipShape) -> Waveform:
    """Exactly `shape.num_samples` a channel. A decoder may come out short by at most one audio latent: silence then."""
    if waveform.ndim != 2 or waveform.shape[0] not in (1, 2):
        raise EncodeError(f"the waveform is {waveform.shape}, expected [1 or 2 channels, samples]")
    if not np.isfinite(waveform).all():
        raise EncodeError("the waveform holds values that are not finite")
    num_samples = waveform.shape[1]
    missing = shape.num_samples - num_samples
    if missing > shape.num_samples // max(shape.audio_latent[0] - 1, 1):
        raise EncodeError(f"the audio codec gave {num_samples} samples, expected {shape.num_samples}")
    return np.pad(waveform[:, : shape.num_samples], ((0, 0), (0, max(missing, 0))))


def write_wav(path: Path, waveform: Waveform, *, shape: ClipShape) -> None:
    """16-bit PCM at the shape's rate and length; louder than full scale is clipped."""
    cut = cut_waveform(waveform, shape=shape)
    samples = np.rint(np.clip(cut, -1.0, 1.0) * 32767.0).astype("<i2")
    with path.open("wb") as file, wave.open(file, "wb") as out:
        out.setnchannels(samples.shape[0])
        out.setsampwidth(2)
        out.setframerate(shape.sample_rate_hz)
        out.writeframes(np.ascontiguousarray(samples.T).tobytes())


def probe_mp4(path: Path) -> Probe:
    """Reads every packet's header with PyAV. EncodeError if it cannot be read or has no video."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise EncodeError(f"{path.name} has no video track")
            video = container.streams.video[0]
            audio = container.streams.audio[0] if container.streams.audio else None
            return Probe(
                width=video.width,
                height=video.height,
                num_frames=sum(1 for packet in container.demux(video) if packet.size),
                fps=float(video.average_rate or 0),
                video_duration_s=_duration_s(video),
                audio_duration_s=_duration_s(audio) if audio else None,
                sample_rate_hz=audio.rate if audio else None,
            )
    except av.error.FFmpegError as error:
        raise EncodeError(f"{path.name} cannot be read back: {error}") from error


def check_probe(probe: Probe, shape: ClipShape, audio: bool) -> None:
    """EncodeError unless the file is exactly what was asked for: size, frames, rate, tracks of equal length."""
    frame_s = 1 / shape.fps
    wrong = [
        f"{name} {got}, expected {expected}"
        for name, got, expected in (
            ("width", probe.width, shape.width),
            ("height", probe.height, shape.height),
            ("frames", probe.num_frames, shape.num_frames),
            ("frames a second", probe.fps, float(shape.fps)),
            ("sample rate", probe.sample_rate_hz, shape.sample_rate_hz if audio else None),
        )
        if got != expected
    ]
    tracks = {"video": probe.video_duration_s} | ({"audio": probe.audio_duration_s or 0.0} if audio else {})
    wrong += [
        f"{name} track of {have:.3f} s, expected {shape.num_frames * frame_s:.3f} s within a frame"
        for name, have in tracks.items()
        if abs(have - shape.num_frames * frame_s) > frame_s
    ]
    if wrong:
        raise EncodeError("the encoded file is not what was asked for: " + "; ".join(wrong))


def _duration_s(stream: av.VideoStream | av.AudioStream) -> float:
    """Of the track itself, not of the container."""
    if stream.duration is None or stream.time_base is None:
        raise EncodeError(f"the {stream.type} track has no duration")
    return float(stream.duration * stream.time_base)
