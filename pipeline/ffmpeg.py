"""One ffmpeg process that takes raw frames on its stdin and writes an mp4 and its poster. Owns its life and its errors.

The binary is imageio-ffmpeg's, never the machine's. Output depends on input and settings alone (bit-exact flags).
"""

import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import ffmpeg
import imageio_ffmpeg

from model.shapes import ClipShape
from pipeline.errors import EncodeError, EncoderLost, StoreError
from pipeline.scratch import no_room
from pipeline.types import MediaSettings

STDERR_CHARS = 2000
LAST_WORDS_S = 2.0  # between closing its stdin and its end, a process that gives up says why
# RGB is what the codec decodes. Delivered: BT.709, limited range, converted so and tagged so; the two must agree or
# players show shifted colours. The encoder takes the tags from the frames; swscale's accurate paths cost little.
TO_YUV = {
    "in_range": "pc",
    "out_range": "tv",
    "out_color_matrix": "bt709",
    "flags": "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact",
}
TAGS = {"range": "tv", "color_primaries": "bt709", "color_trc": "bt709", "colorspace": "bt709"}
# A JPEG is BT.601, full range, without a way to say otherwise.
TO_JPEG = {**TO_YUV, "out_range": "pc", "out_color_matrix": "bt601"}


@dataclass(frozen=True, kw_only=True)
class Outputs:
    mp4: Path
    jpg: Path
    wav: Path | None  # read, not written: the sound of the mp4


class FrameEncoder:
    """Feeds frames to ffmpeg. Leaving the block without `finish` kills the process; no wait exceeds `stall_s`."""

    def __init__(self, outputs: Outputs, *, shape: ClipShape, settings: MediaSettings, stall_s: float) -> None:
        self._command = command(outputs, shape=shape, settings=settings)
        self._stall_s = stall_s
        self._stalled = False

    def __enter__(self) -> Self:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # a file is never full: no thread has to drain it
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            env={},  # FFREPORT and the like would change what it writes
            process_group=0,  # a terminal's Ctrl-C is for the driver, which lets running clips finish
        )
        return self

    def write(self, frames: Any) -> None:
        """Any buffer of whole rgb24 frames. Blocks while ffmpeg is busy."""
        assert self._process.stdin is not None
        try:
            with self._deadline():
                self._process.stdin.write(frames)
        except (BrokenPipeError, ValueError) as error:
            raise self._failure() from error

    def finish(self) -> None:
        """Waits for the files to be complete."""
        assert self._process.stdin is not None
        try:
            with self._deadline():
                self._process.stdin.close()
                code = self._process.wait()
        except BrokenPipeError as error:
            raise self._failure() from error
        if code != 0:
            raise self._failure()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(timeout=self._stall_s)
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # bytes that nobody will read any more
                self._process.stdin.close()
        self._stderr.close()

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        """Kills the process after `stall_s`, which ends whatever waits for it."""

        def give_up() -> None:
            self._stalled = True
            self._process.kill()

        timer = threading.Timer(self._stall_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _failure(self) -> EncodeError | EncoderLost | StoreError:
        """A signal (a memory killer's, say) and a standstill are no fault of the clip: another attempt may do."""
        try:
            code = self._process.wait(timeout=LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait(timeout=self._stall_s)
        if self._stalled:
            return EncoderLost(f"ffmpeg made no progress for {self._stall_s:g} s and was killed")
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip()[-STDERR_CHARS:]
        if "No space left on device" in said:
            return no_room("no space left (ffmpeg)")
        kind = EncoderLost if code < 0 else EncodeError
        return kind(f"ffmpeg ended with code {code}: {said or 'it said nothing'}")


def command(outputs: Outputs, *, shape: ClipShape, settings: MediaSettings) -> list[str]:
    """The whole command line, built by ffmpeg-python."""
    frames = ffmpeg.input(
        "pipe:0",
        format="rawvideo",
        pix_fmt="rgb24",
        video_size=(shape.width, shape.height),
        framerate=shape.fps,
    ).split()
    video = frames[0].filter("scale", **TO_YUV).filter("format", "yuv420p").filter("setparams", **TAGS)
    poster = frames[1].filter("select", f"eq(n,{shape.num_frames // 2})")
    poster = poster.filter("scale", **TO_JPEG).filter("format", "yuvj420p")
    streams = [video] if outputs.wav is None else [video, ffmpeg.input(_file(outputs.wav)).audio]
    mp4 = ffmpeg.output(*streams, _file(outputs.mp4), **_mp4_options(shape, settings, sound=outputs.wav is not None))
    jpg = ffmpeg.output(poster, _file(outputs.jpg), **_jpg_options(settings))
    both = ffmpeg.merge_outputs(mp4, jpg).global_args(*_GLOBAL)
    return [str(word) for word in both.compile(cmd=imageio_ffmpeg.get_ffmpeg_exe())]


# One thread for the filters: they are not the slow part, and a finisher's cores are x264's and the codec's.
_GLOBAL = ("-hide_banner", "-nostdin", "-loglevel", "error", "-y", "-filter_complex_threads", "1")
_BIT_EXACT = {"fflags": "+bitexact", "flags:v": "+bitexact", "flags:a": "+bitexact", "map_metadata": "-1"}


def _mp4_options(shape: ClipShape, settings: MediaSettings, *, sound: bool) -> dict[str, Any]:
    options = {
        "format": "mp4",
        "vcodec": "libx264",
        "crf": settings.crf,
        "preset": settings.preset,
        "threads:v": settings.x264_threads,
        "pix_fmt": "yuv420p",
        "frames:v": shape.num_frames,
        "movflags": "+faststart",
        **_BIT_EXACT,
    }
    if sound:
        options |= {"acodec": "aac", "audio_bitrate": settings.audio_bitrate_bps, "ar": shape.sample_rate_hz}
    return options


def _jpg_options(settings: MediaSettings) -> dict[str, Any]:
    return {
        "format": "image2",
        "update": 1,  # one picture, not a numbered series
        "vcodec": "mjpeg",
        "threads:v": 1,
        "qscale:v": settings.poster_quality,
        "frames:v": 1,
        **_BIT_EXACT,
    }


def _file(path: Path) -> str:
    return f"file:{path}"  # else a colon in a folder's name would be read as a protocol
