"""Clips, records and media settings for tests, each by one call with only what matters in it."""

from collections.abc import Mapping
from typing import Any

from model.shapes import clip_shape
from pipeline.ledger import ClipRecord, deciding_values
from pipeline.manifest.index import RowIndex
from pipeline.outcomes import Outcomes, delivery_of
from pipeline.types import Clip, Finished, MediaFile, MediaSettings, Probe
from tests.models import small_model

MEDIA = MediaSettings(crf=18, preset="veryfast", audio_bitrate_bps=96_000, x264_threads=1, poster_quality=3)


def make_clip(clip_id: str = "a", **changes: Any) -> Clip:
    """A text-to-video clip of the small model; its shape follows its resolution, ratio and duration."""
    size = {"resolution": "64P", "ratio": "16:9", "duration_s": 3}
    size |= {name: changes.pop(name) for name in size.keys() & changes.keys()}
    values: dict[str, Any] = {
        "clip_id": clip_id,
        "row": 0,
        "prompt": "a red ball",
        "negative_prompt": "",
        "image": None,
        "audio": True,
        "audio_in": None,
        "seed": 7,
        "steps": 8,
        "guidance": None,
        "priority": 0,
        "shape": clip_shape(small_model(), **size),  # type: ignore[arg-type]
    }
    return Clip(**{**values, **size, **changes})


def make_record(clip: Clip, *, attempt: str = "0a1b2c3d", settings_hash: str = "f" * 16, **changes: Any) -> ClipRecord:
    """A record whose files are named as they would be, with made-up sizes and digests."""
    kinds = ("mp4", "wav", "jpg") if clip.audio else ("mp4", "jpg")
    seconds = {"encode": 0.1, "render": 2.5, "decode": 0.3, "upload": 0.2}
    shape = clip.shape
    probe = Probe(
        width=shape.width,
        height=shape.height,
        num_frames=shape.num_frames,
        fps=float(shape.fps),
        video_duration_s=float(clip.duration_s),
        audio_duration_s=float(clip.duration_s) if clip.audio else None,
        sample_rate_hz=shape.sample_rate_hz if clip.audio else None,
    )
    files = {k: MediaFile(name=f"clips/{clip.clip_id}.{attempt}.{k}", size_bytes=3, sha256="0" * 64) for k in kinds}
    values: dict[str, Any] = {
        "clip_id": clip.clip_id,
        "settings_hash": settings_hash,
        "seed": clip.seed,
        "model": "small",
        "model_hash": "m" * 16,
        "finished": Finished(attempt=attempt, files=files, probe=probe, seconds=seconds),
        "num_attempts": 1,
        "seconds": seconds,
        "settings": deciding_values(clip, model_hash="m" * 16, media=MEDIA),
        "row": {"prompt": clip.prompt},
    }
    return ClipRecord(**{**values, **changes})


def outcomes_of(index: RowIndex, told: Mapping[str, ClipRecord | str]) -> Outcomes:
    """By clip id: the record of a clip that has succeeded, or why it failed."""
    outcomes = Outcomes(index)
    for position, clip_id in enumerate(index.ids.to_pylist()):
        match told.get(clip_id):
            case ClipRecord() as record:
                outcomes.succeed(position, delivery_of(record))
            case str() as error:
                outcomes.fail(position, error)
    return outcomes
