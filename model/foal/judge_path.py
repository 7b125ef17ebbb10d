"""How the object moved, and when it touched the ground, from the path of its centre."""

import math

import torch
from torch import Tensor

from model.foal.judge_picture import Objects
from model.foal.scenes import BOUNCE_HEIGHT, MARGIN

REST = 3.0  # pixels that an object may sway and still count as being at rest
SWAY = 5.0  # pixels that a moving object may leave its line
WAY = 0.6  # of the free way it must go, at least
STRAIGHT = 0.8  # of all that it moves must be forward
SWING = 0.5  # of the world's bouncing height it must reach
LEAST_CONTACTS = 2  # in a clip of three seconds or more
LOW, HIGH = 0.4, 0.6  # of the way down: a contact is a visit above HIGH between falls below LOW
NEAR = 4  # frames on either side that tell when it was; the shortest bounce takes twelve


def _path(objects: Objects) -> tuple[Tensor, Tensor]:
    """x and y [F]; frames without one whole object take those of the nearest frame with one."""
    seen = objects.whole.nonzero().flatten()
    frames = torch.arange(len(objects.whole))
    nearest = seen[(frames[:, None] - seen).abs().argmin(1)]
    return objects.x[nearest], objects.y[nearest]


def _range(values: Tensor) -> float:
    """From the 5th to the 95th percentile."""
    low, high = values.quantile(torch.tensor([0.05, 0.95]))
    return float(high - low)


def motion_of(objects: Objects, *, fps: int) -> str | None:
    """right, left, bounce or still; None for any other path. At least one frame must be whole."""
    x, y = _path(objects)
    margin = 0.6 * math.sqrt(float(objects.area[objects.whole].median())) + MARGIN  # 0.56 to 0.67: radius by area
    if _range(x) <= REST and _range(y) <= REST:
        return "still"
    if _range(y) <= SWAY and abs(way := float(x[-3:].median() - x[:3].median())) >= WAY * (objects.width - 2 * margin):
        smooth = x.unfold(0, 3, 1).median(dim=1).values
        if abs(way) >= STRAIGHT * float(smooth.diff().abs().sum()):
            return "right" if way > 0 else "left"
    free = BOUNCE_HEIGHT * (objects.height - 2 * margin)
    if _range(x) <= SWAY and _range(y) >= SWING * free and len(contact_times_s(objects, fps=fps)) >= LEAST_CONTACTS:
        return "bounce"
    return None


def contact_times_s(objects: Objects, *, fps: int) -> tuple[float, ...]:
    """When the path turned from falling to rising, to a fraction of a frame."""
    _, y = _path(objects)
    low, high = y.quantile(torch.tensor([0.02, 0.98]))
    down = ((y - low) / (high - low).clamp(min=1e-6)).tolist()
    lowest: int | None = None
    fell, contacts = False, []
    for frame, level in enumerate(down):
        if level < LOW:
            contacts += [] if lowest is None else [lowest]
            lowest, fell = None, True
        elif fell and level > HIGH and (lowest is None or level > down[lowest]):
            lowest = frame
    if lowest is not None and lowest <= len(down) - 3:  # two frames of rising are enough
        contacts.append(lowest)
    return tuple(_turn(y, contact) / fps for contact in contacts)


def _turn(y: Tensor, frame: int) -> float:
    """Where the path turns, near its lowest frame, in frames: the best fit of two mirrored arcs that meet there.

    A polynomial through the frames on either side would carry a pixel's error much farther.
    """
    near = torch.arange(max(0, frame - NEAR), min(len(y), frame + NEAR + 1))
    turns = torch.linspace(frame - 1, frame + 1, 201, dtype=torch.float64)
    away = (near - turns[:, None]).abs()  # [turns, frames]
    arcs = torch.stack([torch.ones_like(away), away, away.square()], dim=2)
    path = y[near].double().expand(len(turns), -1)[..., None]
    fit = arcs @ torch.linalg.lstsq(arcs, path).solution
    return float(turns[(fit - path).square().sum((1, 2)).argmin()])
