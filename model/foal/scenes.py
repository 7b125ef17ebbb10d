"""The foal's world, drawn with exact ground truth: what training sees and what nothing else may import.

A scene is one shape of one colour on a plain background, with one motion and one sound; it is drawn as frames
[F, H, W, 3] in 0..1 and as band amplitudes of its sound. Everything follows from the scene's own values.
"""

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from model.codecs.foal import BAND_HZ, SLOTS_PER_S

SHAPES = ("circle", "square", "triangle")
COLOURS = {
    "red": (0.90, 0.10, 0.12),
    "orange": (1.00, 0.55, 0.05),
    "yellow": (0.98, 0.90, 0.10),
    "green": (0.10, 0.65, 0.20),
    "cyan": (0.10, 0.85, 0.90),
    "blue": (0.10, 0.25, 0.90),
    "purple": (0.50, 0.12, 0.65),
    "pink": (1.00, 0.50, 0.75),
}
BACKGROUNDS = {
    "white": (0.97, 0.97, 0.97),
    "black": (0.03, 0.03, 0.03),
    "gray": (0.5, 0.5, 0.5),
    "brown": (0.40, 0.25, 0.12),
}
MOTIONS = ("right", "left", "bounce", "still")
SOUNDS = ("silence", "hum", "tone", "beep", "thud")
BOUNCE_PERIODS_S = (0.75, 1.0)
BOUNCE_PHASES = (0.5, 0.25)  # 0 is contact, 0.5 the top
RATIO_SIZES = {"1:1": (64, 64), "16:9": (48, 80), "9:16": (80, 48)}  # decoded height, width


@dataclass(frozen=True, kw_only=True)
class Scene:
    shape: str
    colour: str
    background: str
    motion: str
    sound: str
    radius: float  # pixels
    across: float  # 0..1, place on the axis the motion leaves free (both axes when still)
    along: float
    period_s: float
    phase: float
    duration_s: int
    ratio: str

    @property
    def contact_times_s(self) -> list[float]:
        """When a bouncing shape touches the ground."""
        if self.motion != "bounce":
            return []
        first = (1 - self.phase) % 1 * self.period_s
        count = math.ceil((self.duration_s - first) / self.period_s)
        return [first + n * self.period_s for n in range(count)]


def is_held_out(*, shape: str, colour: str, motion: str) -> bool:
    """One eighth of shape x colour x motion never appears in training."""
    place = SHAPES.index(shape) * 3 + list(COLOURS).index(colour) + MOTIONS.index(motion) * 5
    return place % 8 == 7


def random_scene(rng: random.Random, *, duration_s: int, ratio: str, held_out: bool = False) -> Scene:
    """A scene from training's part of the world, or from the held-out eighth."""
    while True:
        shape, colour, motion = rng.choice(SHAPES), rng.choice(list(COLOURS)), rng.choice(MOTIONS)
        if is_held_out(shape=shape, colour=colour, motion=motion) == held_out:
            break
    sounds = SOUNDS if motion == "bounce" else SOUNDS[:3]
    return Scene(
        shape=shape,
        colour=colour,
        background=rng.choice(list(BACKGROUNDS)),
        motion=motion,
        sound=rng.choice(sounds),
        radius=rng.uniform(9.0, 13.0),
        across=rng.uniform(0.2, 0.8),
        along=rng.uniform(0.2, 0.8),
        period_s=rng.choice(BOUNCE_PERIODS_S),
        phase=rng.choice(BOUNCE_PHASES),
        duration_s=duration_s,
        ratio=ratio,
    )


def centre_path(scene: Scene, times_s: Tensor) -> tuple[Tensor, Tensor]:
    """Centre of the shape in pixels, (x, y) at each time."""
    height, width = RATIO_SIZES[scene.ratio]
    margin = scene.radius + 2
    free_x, free_y = width - 2 * margin, height - 2 * margin
    x = torch.full_like(times_s, margin + scene.along * free_x)
    y = torch.full_like(times_s, margin + scene.across * free_y)
    if scene.motion in ("right", "left"):
        progress = times_s / scene.duration_s
        x = margin + free_x * (progress if scene.motion == "right" else 1 - progress)
    elif scene.motion == "bounce":
        cycle = (times_s / scene.period_s + scene.phase) % 1
        y = height - margin - free_y * 0.85 * 4 * cycle * (1 - cycle)
    return x, y


def _coverage(scene: Scene, dx: Tensor, dy: Tensor) -> Tensor:
    """How much of each pixel the shape covers, from its signed distance; dx, dy in pixels from its centre."""
    r = scene.radius
    if scene.shape == "circle":
        distance = torch.hypot(dx, dy) - r
    elif scene.shape == "square":
        distance = torch.maximum(dx.abs(), dy.abs()) - r * 0.9
    else:  # equilateral, one side down
        slope = math.sqrt(3) / 2 * dx.abs() - dy / 2
        distance = torch.maximum(slope - r * 0.6, dy - r * 0.75)
    return (0.5 - distance).clamp(0, 1)


def draw_frames(scene: Scene, *, num_frames: int, fps: int) -> Tensor:
    """[num_frames, H, W, 3] float32 in 0..1."""
    height, width = RATIO_SIZES[scene.ratio]
    x, y = centre_path(scene, torch.arange(num_frames) / fps)
    dy = torch.arange(height)[None, :, None] + 0.5 - y[:, None, None]
    dx = torch.arange(width)[None, None, :] + 0.5 - x[:, None, None]
    coverage = _coverage(scene, dx, dy)[..., None]
    return coverage * torch.tensor(COLOURS[scene.colour]) + (1 - coverage) * torch.tensor(BACKGROUNDS[scene.background])


_TIMBRES = {  # (Hz, amplitude) of each partial
    "hum": ((110.0, 0.35), (220.0, 0.15)),
    "tone": ((1000.0, 0.3),),
    "beep": ((1600.0, 0.4),),
    "thud": ((75.0, 0.5), (130.0, 0.2)),
}
_BURST_S = {"beep": 0.12, "thud": 0.16}


def draw_sound(scene: Scene, *, num_slots: int) -> Tensor:
    """[num_slots, bands] amplitudes of the sinusoid bank at SLOTS_PER_S."""
    amplitudes = torch.zeros(num_slots, len(BAND_HZ))
    if scene.sound == "silence":
        return amplitudes
    times_s = (torch.arange(num_slots) + 0.5) / SLOTS_PER_S
    envelope = torch.ones(num_slots)
    if scene.sound in _BURST_S:
        envelope = torch.zeros(num_slots)
        for contact_s in scene.contact_times_s:
            since = times_s - contact_s
            decay = (1 - since / _BURST_S[scene.sound]).clamp(0, 1) * (since > -0.5 / SLOTS_PER_S)
            envelope = torch.maximum(envelope, decay.clamp(max=1))
    bands_hz = torch.tensor(BAND_HZ)
    for frequency_hz, amplitude in _TIMBRES[scene.sound]:
        amplitudes[:, int((bands_hz - frequency_hz).abs().argmin())] = amplitude * envelope
    return amplitudes
