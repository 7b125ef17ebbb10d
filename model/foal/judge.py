"""The judge: what a finished clip shows and sounds like, measured from its frames and its sound alone.

It knows the foal's world (its colours, shapes, ways to move, sounds) but not what was asked for. Nothing that renders
may import it. Where a clip shows none of the world's values, or no single whole object, the verdict says None: a
guess would be right now and then. Reading files, asking, counting and drawing tables are `tests/judge`'s.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.foal.judge_path import contact_times_s, motion_of
from model.foal.judge_picture import edge_width, find_objects, one_colour_of, shape_scores
from model.foal.judge_sound import onset_times_s, sound_of
from model.foal.scenes import BACKGROUNDS, COLOURS

ONE_OBJECT = 0.8  # of the frames must show one whole object, for a shape or a motion to be named
SHAPE_FIT = 0.87  # drawn shapes reach 0.89 when blurred by 1.5 pixels, half ones and bars 0.83 at most
SAME_SHAPE = 0.6  # of these frames must be likest to one shape


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """None: nothing of the world's, or nothing that can be told."""

    background: str | None
    colour: str | None
    shape: str | None
    shape_scores: dict[str, float] | None  # likeness to each shape, 0..1; None: no single whole object
    motion: str | None
    sound: str | None
    contact_times_s: tuple[float, ...]  # when a bouncing object touched the ground
    onset_times_s: tuple[float, ...]  # when bursts of sound began; empty for steady sounds and silence
    edge_width_px: float | None  # 10 to 90 %, in delivered pixels, median over the object's edge
    one_object: float  # share of frames that show one whole object


def judge_clip(frames: Tensor, waveform: Tensor | None, *, sample_rate_hz: int, fps: int) -> Verdict:
    """Judges uint8 frames [F, H, W, 3] and a float waveform [samples] in -1..1 (None: no sound track).

    Any size from 64P on; 5 to 10 ms a second of 64P video. ValueError for other arrays.
    """
    if frames.dtype != torch.uint8 or frames.dim() != 4 or frames.shape[3] != 3:
        raise ValueError(f"frames are {frames.dtype} {tuple(frames.shape)}, expected uint8 [F, H, W, 3]")
    if waveform is not None and waveform.dim() != 1:
        raise ValueError(f"the waveform is {tuple(waveform.shape)}, expected [samples]")
    objects = find_objects(frames)
    one_object = float(objects.whole.float().mean())
    trusted = one_object >= ONE_OBJECT
    likeness = shape_scores(objects) if trusted else None
    motion = motion_of(objects, fps=fps) if trusted else None
    return Verdict(
        background=one_colour_of(objects.backdrop, BACKGROUNDS),
        colour=one_colour_of(objects.core, COLOURS),
        shape=_shape_of(likeness) if likeness else None,
        shape_scores={shape: float(each.mean()) for shape, each in likeness.items()} if likeness else None,
        motion=motion,
        sound="silence" if waveform is None else sound_of(waveform, sample_rate_hz=sample_rate_hz),
        contact_times_s=contact_times_s(objects, fps=fps) if motion == "bounce" else (),
        onset_times_s=() if waveform is None else onset_times_s(waveform, sample_rate_hz=sample_rate_hz),
        edge_width_px=edge_width(objects) if trusted else None,
        one_object=one_object,
    )


def _shape_of(likeness: dict[str, Tensor]) -> str | None:
    """The shape that is like enough, and the likest in most frames."""
    scores = torch.stack(list(likeness.values()))  # [shapes, frames]
    best = int(scores.mean(dim=1).argmax())
    steady = float((scores.argmax(dim=0) == best).float().mean()) >= SAME_SHAPE
    return list(likeness)[best] if steady and float(scores[best].mean()) >= SHAPE_FIT else None
