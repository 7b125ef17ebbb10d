"""The values that travel between the parts of the pipeline. Plain, frozen, picklable; no torch, no Ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from model.shapes import ClipShape

Stage = Literal["encode", "render", "enlarge", "finish"]  # enlarge: where super-resolution has groups of its own
Preset = Literal[  # x264's
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
]
State = Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELED"]


@dataclass(frozen=True, kw_only=True)
class ImageRef:
    """Where a clip's first frame comes from: exactly one of `uri` (absolute) and `data`; its size was read already."""

    uri: str | None
    data: bytes | None
    identity: str  # changes with the content: its SHA-256, or for object storage the store's ETag and size
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class SoundRef:
    """Where the sound that a clip is rendered to comes from: exactly one of `uri` (absolute) and `data`."""

    uri: str | None
    data: bytes | None
    identity: str  # SHA-256
    seconds: float  # of sound in it, counted to 30 at most


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One validated manifest row with every default filled in: all that decides its pixels and samples."""

    clip_id: str
    row: int  # position in the manifest, from 0
    prompt: str
    negative_prompt: str | None  # None: no stage is guided
    image: ImageRef | None
    audio: bool
    audio_in: SoundRef | None  # None: the sound is rendered too
    resolution: str
    ratio: str
    duration_s: int
    seed: int
    steps: int
    guidance: float | None  # None: the model's own
    priority: int
    shape: ClipShape


@dataclass(frozen=True, kw_only=True)
class MediaSettings:
    """How delivered files are encoded. Changing any of them changes the settings hash."""

    crf: int
    preset: Preset
    audio_bitrate_bps: int
    x264_threads: int
    poster_quality: int  # ffmpeg's mjpeg scale, 2 (best) to 31

    def __post_init__(self) -> None:
        for name, least, most in (("crf", 0, 51), ("x264_threads", 1, 128), ("poster_quality", 2, 31)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {least} to {most}")
        if self.audio_bitrate_bps < 8000:
            raise ValueError(f"audio_bitrate_bps is {self.audio_bitrate_bps}, expected at least 8000")


@dataclass(frozen=True, kw_only=True)
class MediaFile:
    """A delivered file: `name` is its key below the output."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What PyAV saw in the finished mp4, before upload."""

    width: int
    height: int
    num_frames: int
    fps: float
    video_duration_s: float
    audio_duration_s: float | None  # None: no audio track
    sample_rate_hz: int | None


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a finisher answers: a few hundred bytes."""

    attempt: str
    files: Mapping[str, MediaFile]  # keys: mp4, wav (absent without sound), jpg
    probe: Probe
    seconds: Mapping[str, float]  # decode, encode, upload


@dataclass(frozen=True, kw_only=True)
class ClipFailure:
    """One thing that went wrong with one clip in one stage, as data."""

    stage: Stage
    kind: str  # name of the error class
    message: str
    retriable: bool


@dataclass(frozen=True, kw_only=True)
class GroupStatus:
    """What a progress display and a watchdog need to know of a render group."""

    group_id: str
    state: Literal["starting", "ready", "busy", "lost"]
    clip_id: str | None = None
    step: int = 0
    num_steps: int = 0
    num_clips: int = 0  # rendered by it so far
    nodes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What somebody wants of a run that is under way."""

    kind: Literal["go on", "pause", "cancel"] = "go on"
    said: str = ""  # by whom and when, for the log


JsonDict = dict[str, Any]
