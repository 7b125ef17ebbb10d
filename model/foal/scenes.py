"""The foal's world, drawn with exact ground truth: what training sees and what nothing else may import.

A scene is one shape of one colour on a plain background, with one motion and one sound; it is drawn as frames
[F, H, W, 3] in 0..1 and as band amplitudes of its sound. Everything follows from the scene's own values. Lengths are
in pixels of the 64P picture; a picture of twice the size is drawn with `scale=2`.
"""

import math
import random
from dataclasses import dataclass
from typing import Literal

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
FPS = 12  # of the clips that training sees
BOUNCE_PERIOD_S = {"circle": 1.0, "square": 4 / 3, "triangle": 4 / 3}  # contacts fall on frames and instants of sound
BOUNCE_PHASE = 0.5  # 0 is contact, 0.5 the top
BOUNCE_HEIGHT = 0.65  # of the way that the picture leaves free
RATIO_SIZES = {"1:1": (64, 64), "16:9": (48, 80), "9:16": (80, 48)}  # decoded height, width
LEAST_CONTRAST = 0.4  # of RGB; the colours differ by 0.41 and more from the backgrounds
MARGIN = 2.0  # pixels that a shape keeps from the picture's edge, about
RADIUS, ANY_RADIUS = 12.5, (11.0, 14.5)  # at 1:1
NARROW = 0.86  # of the radius, where the picture's short side is 48
CENTRE, ANY_LANE = 0.5, (0.1, 0.9)
Places = Literal["centre", "any"]  # where shapes stand, and how large they are


@dataclass(frozen=True, kw_only=True)
class Scene:
    shape: str
    colour: str
    background: str
    motion: str
    sound: str
    radius: float
    across: float  # 0..1, height in the picture where the motion leaves it open
    along: float  # 0..1, place from left to right where the motion leaves it open
    period_s: float
    phase: float
    duration_s: int
    ratio: str
    paint: tuple[float, float, float] | None = None  # RGB in place of its colour's

    @property
    def contact_times_s(self) -> list[float]:
        """When a bouncing shape touches the ground."""
        if self.motion != "bounce":
            return []
        first = (1 - self.phase) % 1 * self.period_s
        count = math.ceil((self.duration_s - first) / self.period_s)
        return [first + n * self.period_s for n in range(count)]


def _held_out() -> set[tuple[str, str, str]]:
    """12 of the 96 combinations: each shape with each motion once, each colour once or twice."""
    colours = list(COLOURS)
    return {(SHAPES[n % 3], colours[(n * 3 + n // 8) % 8], MOTIONS[n % 4]) for n in range(12)}


HELD_OUT = frozenset(_held_out())


def is_held_out(*, shape: str, colour: str, motion: str) -> bool:
    """One eighth of shape x colour x motion never appears in training."""
    return (shape, colour, motion) in HELD_OUT


def random_scene(
    rng: random.Random, *, duration_s: int, ratio: str, held_out: bool = False, places: Places = "centre"
) -> Scene:
    """A scene from training's part of the world, or from the held-out eighth.

    A prompt means one clip: what it leaves open, a model would have to choose alike in every frame. So a shape stands
    in the centre, of one size, and how fast it bounces follows from what it is. A first frame shows it anywhere.
    """
    while True:
        shape, colour, motion = rng.choice(SHAPES), rng.choice(list(COLOURS)), rng.choice(MOTIONS)
        if is_held_out(shape=shape, colour=colour, motion=motion) == held_out:
            break
    sounds = SOUNDS if motion == "bounce" else SOUNDS[:3]
    radius, across, along = _place(rng, places)
    return Scene(
        shape=shape,
        colour=colour,
        background=rng.choice(list(BACKGROUNDS)),
        motion=motion,
        sound=rng.choice(sounds),
        radius=radius * (1 if ratio == "1:1" else NARROW),
        across=across,
        along=along,
        period_s=BOUNCE_PERIOD_S[shape],
        phase=BOUNCE_PHASE,
        duration_s=duration_s,
        ratio=ratio,
    )


def any_paint(rng: random.Random, scene: Scene) -> tuple[float, float, float]:
    """RGB that stands out from the scene's background, and whose nearest colour does not make it a held-out one."""
    while True:
        paint = (rng.random(), rng.random(), rng.random())
        nearest = min(COLOURS, key=lambda name: math.dist(COLOURS[name], paint))
        is_clear = math.dist(paint, BACKGROUNDS[scene.background]) > LEAST_CONTRAST
        if is_clear and not is_held_out(shape=scene.shape, colour=nearest, motion=scene.motion):
            return paint


def _place(rng: random.Random, places: Places) -> tuple[float, float, float]:
    """(radius, across, along)"""
    if places == "any":
        return rng.uniform(*ANY_RADIUS), rng.uniform(*ANY_LANE), rng.uniform(*ANY_LANE)
    return RADIUS, CENTRE, CENTRE


def centre_path(scene: Scene, times_s: Tensor) -> tuple[Tensor, Tensor]:
    """Centre of the shape, (x, y) at each time."""
    height, width = RATIO_SIZES[scene.ratio]
    margin = scene.radius + MARGIN
    free_x, free_y = width - 2 * margin, height - 2 * margin
    x = torch.full_like(times_s, margin + scene.along * free_x)
    y = torch.full_like(times_s, margin + scene.across * free_y)
    if scene.motion in ("right", "left"):
        progress = times_s / scene.duration_s
        x = margin + free_x * (progress if scene.motion == "right" else 1 - progress)
    elif scene.motion == "bounce":
        cycle = (times_s / scene.period_s + scene.phase) % 1
        y = height - margin - free_y * BOUNCE_HEIGHT * 4 * cycle * (1 - cycle)
    return x, y


def _coverage(shape: str, r: float, dx: Tensor, dy: Tensor) -> Tensor:
    """How much of each pixel the shape covers, from its signed distance; dx, dy and r in pixels of the picture."""
    if shape == "circle":
        distance = torch.hypot(dx, dy) - r
    elif shape == "square":
        distance = torch.maximum(dx.abs(), dy.abs()) - r * 0.9
    else:  # equilateral, one side down
        slope = math.sqrt(3) / 2 * dx.abs() - dy / 2
        distance = torch.maximum(slope - r * 0.55, dy - r * 0.85)
    return (0.5 - distance).clamp(0, 1)


def draw_coverage(scene: Scene, *, num_frames: int, fps: int, scale: int = 1) -> Tensor:
    """[num_frames, H*scale, W*scale, 1] float32: 1 inside the shape, 0 outside, edges one pixel wide at every scale."""
    height, width = (side * scale for side in RATIO_SIZES[scene.ratio])
    x, y = (scale * place for place in centre_path(scene, torch.arange(num_frames) / fps))
    dy = torch.arange(height)[None, :, None] + 0.5 - y[:, None, None]
    dx = torch.arange(width)[None, None, :] + 0.5 - x[:, None, None]
    return _coverage(scene.shape, scene.radius * scale, dx, dy)[..., None]


def draw_frames(scene: Scene, *, num_frames: int, fps: int, scale: int = 1) -> Tensor:
    """[num_frames, H*scale, W*scale, 3] float32 in 0..1."""
    colour = torch.tensor(scene.paint or COLOURS[scene.colour])
    background = torch.tensor(BACKGROUNDS[scene.background])
    return background + draw_coverage(scene, num_frames=num_frames, fps=fps, scale=scale) * (colour - background)


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
            decay = (1 - since / _BURST_S[scene.sound]).clamp(0, 1) * (since > 0)
            envelope = torch.maximum(envelope, decay.clamp(max=1))
    bands_hz = torch.tensor(BAND_HZ)
    for frequency_hz, amplitude in _TIMBRES[scene.sound]:
        amplitudes[:, int((bands_hz - frequency_hz).abs().argmin())] = amplitude * envelope
    return amplitudes
