"""Batches of drawn clips: latents of their pictures and sound, and the ids of their captions.

n batch, C latent channels, T H W latent frames and cells, L audio latents.
"""

import dataclasses
import random

import torch
from torch import Tensor
from torch.nn import functional

from model.codecs.foal import BLOCK, SLOTS_PER_LATENT, FoalAudioCodec, FoalVideoCodec
from model.foal.captions import caption
from model.foal.scenes import (
    FPS,
    RATIO_SIZES,
    Places,
    Scene,
    any_paint,
    draw_coverage,
    draw_frames,
    draw_sound,
    random_scene,
)
from model.shapes import TIME_STRIDE, decoded_frames, latent_frames
from model.text import UNKNOWN, FoalTextEncoder

DURATIONS_S, DURATION_WEIGHTS = (3, 4, 5), (6, 2, 2)
RATIO_WEIGHTS = {"1:1": 6, "16:9": 2, "9:16": 2}
TEXT_DROPPED = 0.10  # batches with the empty prompt, for guidance
IMAGE_GIVEN = 0.5  # batches whose first latent frame is clean, for image-to-video
SUBJECT_UNNAMED = 0.75  # of those, captions that name neither colour nor shape
ANY_PAINT = 0.5  # of these, shapes in a colour that has no name: it must be taken from the image
EDGE_WEIGHT = 8.0  # of a cell that an edge of the shape crosses, against one of a single colour
STRANGE_WORDS = 0.2  # captions with a word or two that it does not know


@dataclasses.dataclass(frozen=True)
class Batch:
    video: Tensor  # [n, C, T, H, W] clean latents
    large: Tensor | None  # [n, C, T, 2H, 2W] of the same clips at twice the size, where asked for
    weight: Tensor  # [n, 1, T, H, W] of each cell in the loss: those that an edge crosses count more
    large_weight: Tensor | None  # [n, 1, T, 2H, 2W]
    audio: Tensor  # [n, L, 64]
    text: Tensor  # [n, tokens, Ct]; short captions repeat the end token
    num_given: int  # latent frames that are given clean: 1 with an image, else 0


class Noise:
    """All random numbers of one step, drawn on the CPU."""

    def __init__(self, seed: int, *, device: str) -> None:
        self._generator, self._device = torch.Generator().manual_seed(seed), device

    def like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self._generator).to(self._device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator).to(self._device)


class Clips:
    """Draws the batches of a training, each from the seed and its step alone."""

    def __init__(
        self,
        *,
        seed: int,
        size: int,
        codec: FoalVideoCodec,
        text: FoalTextEncoder,
        device: str,
        text_dropped: float = TEXT_DROPPED,
        image_given: float = IMAGE_GIVEN,
        large: bool = False,
        places: Places = "centre",
    ) -> None:
        """`places` is what a prompt alone means; with an image, shapes are anywhere."""
        self.seed, self.size, self.device = seed, size, device
        self.codec, self.text = codec.eval().to(device), text.to(device)
        self.text_dropped, self.image_given = text_dropped, image_given
        self.large, self.places = large, places

    def draw(self, step: int) -> tuple[Batch, Noise]:
        """Clips of one length and ratio."""
        rng = random.Random(f"{self.seed}/{step}")
        duration_s = rng.choices(DURATIONS_S, DURATION_WEIGHTS)[0]
        ratio = rng.choices(list(RATIO_SIZES), [RATIO_WEIGHTS[r] for r in RATIO_SIZES])[0]
        image_given, is_dropped = rng.random() < self.image_given, rng.random() < self.text_dropped
        places: Places = "any" if image_given else self.places
        scenes = [random_scene(rng, duration_s=duration_s, ratio=ratio, places=places) for _ in range(self.size)]
        named = [not (image_given and rng.random() < SUBJECT_UNNAMED) for _ in scenes]
        scenes = [scene if is_named else _painted(scene, rng) for scene, is_named in zip(scenes, named, strict=True)]
        rows = [
            [] if is_dropped else self._words(scene, rng, name_subject=is_named)
            for scene, is_named in zip(scenes, named, strict=True)
        ]
        batch = Batch(
            video=self._video(scenes, scale=1),
            large=self._video(scenes, scale=2) if self.large else None,
            weight=_weight(scenes, scale=1).to(self.device),
            large_weight=_weight(scenes, scale=2).to(self.device) if self.large else None,
            audio=torch.stack([_audio(scene) for scene in scenes]).to(self.device),
            text=self._embed(rows),
            num_given=int(image_given),
        )
        return batch, Noise(self.seed * 1_000_003 + step, device=self.device)

    def empty_text(self) -> Tensor:
        """[1, tokens, Ct] of the empty prompt."""
        return self._embed([[]])

    def _words(self, scene: Scene, rng: random.Random, *, name_subject: bool) -> list[int]:
        """Ids of a caption, now and then with one or two unknown words somewhere."""
        ids = self.text.tokenize(caption(scene, rng, name_subject=name_subject))[1:-1]
        if rng.random() < STRANGE_WORDS:
            for _ in range(rng.choice((1, 2))):
                ids.insert(rng.randrange(len(ids) + 1), self.text.words[UNKNOWN])
        return ids

    def _embed(self, rows: list[list[int]]) -> Tensor:
        begin, end = self.text.tokenize("")
        longest = max(map(len, rows))
        ids = [[begin, *row, *[end] * (longest + 1 - len(row))] for row in rows]
        return self.text.embed(torch.tensor(ids, device=self.device))

    @torch.no_grad()
    def _video(self, scenes: list[Scene], *, scale: int) -> Tensor:
        num_frames = decoded_frames(latent_frames(scenes[0].duration_s * FPS))
        frames = torch.stack([draw_frames(scene, num_frames=num_frames, fps=FPS, scale=scale) for scene in scenes])
        with torch.autocast(self.device, torch.bfloat16):
            return self.codec.encode(frames.to(self.device)).float()


def _painted(scene: Scene, rng: random.Random) -> Scene:
    """The scene, or the same in another colour."""
    return dataclasses.replace(scene, paint=any_paint(rng, scene)) if rng.random() < ANY_PAINT else scene


def _weight(scenes: list[Scene], *, scale: int) -> Tensor:
    """[n, 1, T, H, W], 1 in the mean of each clip."""
    num_frames = decoded_frames(latent_frames(scenes[0].duration_s * FPS))
    covered = torch.stack(
        [draw_coverage(scene, num_frames=num_frames, fps=FPS, scale=scale)[..., 0] for scene in scenes]
    )
    groups = torch.cat([covered[:, :1].expand(-1, TIME_STRIDE - 1, -1, -1), covered], dim=1)
    cell = (TIME_STRIDE, BLOCK, BLOCK)
    touched = functional.max_pool3d(groups[:, None], cell) > 0
    on_edge = touched & (functional.max_pool3d(1 - groups[:, None], cell) > 0)
    weight = 1 + (EDGE_WEIGHT - 1) * on_edge
    return weight / weight.mean((2, 3, 4), keepdim=True)


def _audio(scene: Scene) -> Tensor:
    num_latents = scene.duration_s * FPS + 1
    return FoalAudioCodec().encode(draw_sound(scene, num_slots=num_latents * SLOTS_PER_LATENT))
