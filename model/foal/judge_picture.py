"""The object in each frame: where, how large, how whole, of what colour, of what shape, and how sharp its edge.

F frames, H W pixels. Lengths come in pixels of the 64P picture (`scale` = 2: delivered pixels are half as large).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.foal.scenes import BACKGROUNDS, COLOURS, SHAPES

BORDER = 2  # pixels at the picture's edge that shapes keep out of, about
LEAST_CONTRAST = 0.2  # of RGB in 0..1: the world's colours differ by 0.41 and more from its backgrounds
STRAY_LEVEL = 0.35  # of the object's contrast: from here on something beside it counts as another object
STRAY = 0.15  # of the object's area may lie beside it
HALO = 3  # pixels around the object that belong to its own edge
LEAST_AREA, MOST_AREA = 120.0, 900.0  # the world's: 160 to 680 pixels
SHARPEN = 2.5  # slope of the coverage about its half: shapes are compared by their outline, not by its blur
NAMED = 0.15  # of Oklab: the world's colours and backgrounds lie 0.19 and more apart
VOTES = 0.6  # of the pixels must be of one name
EDGE_FRAMES = 12  # are enough to measure the edge
EDGE_REACH = 7.0  # pixels to either side of it
EDGE_STEP = 0.25
LEAST_PROFILES = 20


@dataclass(frozen=True)
class Objects:
    """What stands out from the background. Frames where that is not one whole object have `whole` False."""

    scale: int
    height: float  # of the picture
    width: float
    coverage: Tensor  # [F, H, W] the object's share of each pixel, by its contrast to the background; about 0..1
    outline: Tensor  # [F, H, W] the same, sharpened, and 0 away from the object
    whole: Tensor  # [F] bool
    area: Tensor  # [F] square pixels
    x: Tensor  # [F] centre of mass; of frames that are not whole, too, for what it is worth
    y: Tensor
    core: Tensor  # [n, 3] colours of the pixels inside all objects; few or none: no object
    backdrop: Tensor  # [m, 3] colours at the picture's edge


def find_objects(frames: Tensor) -> Objects:
    """Separates the object from the background in uint8 frames [F, H, W, 3]."""
    rgb = frames.float() / 255
    _, height, width, _ = rgb.shape
    scale = max(1, round(math.sqrt(height * width) / 64))
    border = BORDER * scale
    rows = torch.cat([rgb[:, :border], rgb[:, -border:]], dim=1)
    columns = torch.cat([rgb[:, :, :border], rgb[:, :, -border:]], dim=2)
    backdrop = torch.cat([rows.reshape(-1, 3), columns.reshape(-1, 3)])
    away = rgb - backdrop.median(dim=0).values
    distance = away.norm(dim=-1)
    typical = float(distance.flatten(1).quantile(0.98, dim=1).median())  # the object covers 4 % and more
    if typical < LEAST_CONTRAST:
        nothing = torch.zeros_like(distance)
        none = torch.zeros(len(frames))
        return Objects(
            scale, height / scale, width / scale, nothing, nothing, none > 0, none, none, none, rgb[:0, 0, 0], backdrop
        )
    contrast = away[distance > 0.7 * typical].median(dim=0).values
    span = float(contrast.norm())
    mask = distance > 0.5 * max(span, typical * 0.7)
    body = _largest_piece(mask, scale)
    near = _grow(body, HALO * scale)
    strays = ((distance > STRAY_LEVEL * span) & ~near).flatten(1).sum(1)
    coverage = (away @ contrast / span**2).clamp(-0.25, 1.25)
    outline = ((coverage - 0.5) * SHARPEN + 0.5).clamp(0, 1) * near
    mass = outline.flatten(1).sum(1)
    area = mass / scale**2
    across, down = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    core = mask & ~_grow(~mask, scale)
    return Objects(
        scale=scale,
        height=height / scale,
        width=width / scale,
        coverage=coverage,
        outline=outline,
        whole=(area > LEAST_AREA) & (area < MOST_AREA) & (strays < STRAY * mass),
        area=area,
        x=(outline.sum(1) @ across) / mass.clamp(min=1) / scale,
        y=(outline.sum(2) @ down) / mass.clamp(min=1) / scale,
        core=rgb[core],
        backdrop=backdrop,
    )


def _grow(mask: Tensor, pixels: int) -> Tensor:
    """[F, H, W] bool, larger by so many pixels on every side."""
    for dim in (1, 2):
        grown, side = mask.clone(), mask.shape[dim]
        for shift in range(1, pixels + 1):
            grown.narrow(dim, shift, side - shift).logical_or_(mask.narrow(dim, 0, side - shift))
            grown.narrow(dim, 0, side - shift).logical_or_(mask.narrow(dim, shift, side - shift))
        mask = grown
    return mask


def _largest_piece(mask: Tensor, scale: int) -> Tensor:
    """In each frame the connected piece that holds the densest place of the mask, [F, H, W] bool."""
    side = 6 * scale + 1
    dense = (functional.avg_pool2d(mask.float()[:, None], side, stride=1, padding=side // 2)[:, 0] * mask).flatten(1)
    piece = torch.zeros_like(mask).flatten(1)
    piece = piece.scatter_(1, dense.argmax(1, keepdim=True), True).view_as(mask) & mask
    size = -1
    while int(piece.sum()) != size:
        size = int(piece.sum())
        for _ in range(4):
            piece = _grow(piece, 1) & mask
    return piece


def _oklab(rgb: Tensor) -> Tensor:
    """sRGB in 0..1 [n, 3] -> Oklab (Ottosson 2020), where distances are about as the eye has them."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_cones = torch.tensor(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = torch.tensor(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return (linear @ to_cones.T).clamp(min=0) ** (1 / 3) @ to_lab.T


def one_colour_of(pixels: Tensor, wanted: Mapping[str, tuple[float, float, float]]) -> str | None:
    """The name among `wanted` that most pixels [n, 3] bear; all colours and backgrounds of the world stand for it."""
    if len(pixels) < LEAST_AREA:
        return None
    world = {**COLOURS, **BACKGROUNDS}
    distances = torch.cdist(_oklab(pixels), _oklab(torch.tensor(list(world.values()))))
    nearest = distances.min(dim=1)
    votes = torch.bincount(nearest.indices[nearest.values < NAMED], minlength=len(world))
    name = list(world)[int(votes.argmax())]
    return name if name in wanted and int(votes.max()) >= VOTES * len(pixels) else None


def _template(shape: str, objects: Objects) -> Tensor:
    """[n, H, W] coverage by an ideal shape with each whole object's area and centre of mass."""
    whole, scale = objects.whole, objects.scale
    x, y, area = (value[whole, None, None] * scale for value in (objects.x, objects.y, objects.area * scale))
    _, height, width = objects.outline.shape
    dx, dy = torch.arange(width) + 0.5 - x, torch.arange(height)[:, None] + 0.5 - y
    if shape == "circle":
        distance = torch.hypot(dx, dy) - (area / math.pi).sqrt()
    elif shape == "square":
        distance = torch.maximum(dx.abs(), dy.abs()) - area.sqrt() / 2
    else:  # equilateral, one side down: its centre of mass is as far from each side
        inner = (area / (3 * math.sqrt(3))).sqrt()
        distance = torch.maximum(math.sqrt(3) / 2 * dx.abs() - dy / 2, dy) - inner
    return (0.5 - SHARPEN * distance).clamp(0, 1)


def shape_scores(objects: Objects) -> dict[str, Tensor]:
    """Likeness to each shape (overlap over mean area, 0..1) in each frame [n] that has one whole object."""
    outline = objects.outline[objects.whole]
    scores = {}
    for shape in SHAPES:
        template = _template(shape, objects)
        overlap = torch.minimum(outline, template).flatten(1).sum(1)
        scores[shape] = 2 * overlap / (outline.flatten(1).sum(1) + template.flatten(1).sum(1))
    return scores


def edge_width(objects: Objects) -> float | None:
    """Width of the object's edge from 10 to 90 % along its normal, in delivered pixels: the median over many places.

    A Gaussian blur of s pixels has 2.56 s. None where fewer than 20 profiles could be measured.
    """
    scale = objects.scale
    chosen = objects.whole.nonzero().flatten()
    chosen = chosen[torch.linspace(0, len(chosen) - 1, min(EDGE_FRAMES, len(chosen))).long()]
    coverage = objects.coverage[chosen]
    inside = objects.outline[chosen] > 0.5
    frame, row, column = (inside & _grow(~inside, 1)).nonzero(as_tuple=True)
    smooth = functional.avg_pool2d(coverage[:, None], 2 * scale + 3, stride=1, padding=scale + 1)[:, 0]
    down, across = torch.gradient(smooth, dim=(1, 2))
    normal = -torch.stack([across, down], dim=-1)[frame, row, column]  # out of the object
    normal = normal / normal.norm(dim=1, keepdim=True).clamp(min=1e-6)
    reach = EDGE_REACH * scale
    steps = torch.arange(-reach, reach + EDGE_STEP / 2, EDGE_STEP)
    places = torch.stack([column, row], dim=1)[:, None] + normal[:, None] * steps[:, None]  # [places, steps, xy]
    _, height, width = coverage.shape
    inner = ((places >= 0) & (places <= torch.tensor([width - 1, height - 1]))).all(dim=2).all(dim=1)
    widths = _widths(_profiles(coverage, frame[inner], places[inner]), steps)
    return float(widths.median()) if len(widths) >= LEAST_PROFILES else None


def _profiles(coverage: Tensor, frame: Tensor, places: Tensor) -> Tensor:
    """Coverage at places [n, steps, xy] of frames [n], by cubic interpolation: [n, steps]."""
    count, height, width = coverage.shape
    grid = places * 2 / torch.tensor([width - 1, height - 1]) - 1
    profiles = torch.empty(places.shape[:2])
    for each in range(count):
        here = frame == each
        if here.any():
            sampled = functional.grid_sample(
                coverage[None, None, each], grid[None, here], mode="bicubic", align_corners=True
            )
            profiles[here] = sampled[0, 0]
    return profiles


def _widths(profiles: Tensor, steps: Tensor) -> Tensor:
    """10 to 90 % widths of profiles [n, steps] that fall from object to background; unclear ones are left out."""
    plateau = max(1, len(steps) // 7)
    high, low = profiles[:, :plateau].mean(1, keepdim=True), profiles[:, -plateau:].mean(1, keepdim=True)
    clear = ((high - low) > 0.5).flatten()
    levels = ((profiles - low) / (high - low).clamp(min=1e-6))[clear]
    return _first_below(levels, 0.1, steps) - _last_above(levels, 0.9, steps)


def _first_below(levels: Tensor, level: float, steps: Tensor) -> Tensor:
    """Where each profile comes down to `level` on its way from the middle outwards, between two samples."""
    middle = len(steps) // 2
    below = (levels <= level) & (torch.arange(len(steps)) > middle)
    at = below.int().argmax(1).clamp(min=1)
    here, before = levels.gather(1, at[:, None])[:, 0], levels.gather(1, at[:, None] - 1)[:, 0]
    return steps[at] - (level - here) / (before - here).clamp(min=1e-6) * EDGE_STEP


def _last_above(levels: Tensor, level: float, steps: Tensor) -> Tensor:
    """The same from the middle inwards."""
    return -_first_below(1 - levels.flip(1), 1 - level, steps)
