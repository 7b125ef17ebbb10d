"""What the foal is asked for: held-out scenes in words of a draw of their own, as rows of a manifest."""

import io
import random
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from model.foal.captions import caption
from model.foal.scenes import MOTIONS, RATIO_SIZES, SOUNDS, Places, Scene, draw_frames, random_scene

SEED = 5
DURATIONS_S, DURATION_WEIGHTS = (3, 4, 5), (6, 1, 1)
RATIO_WEIGHTS = (6, 2, 2)
ANY = (MOTIONS, SOUNDS)
CONTACT = (("bounce",), ("beep", "thud"))
# Of each eight clips three sound at their contacts, two move sideways, one stands still, two are as they come.
PLAN = (CONTACT, (("right",), SOUNDS), ANY, CONTACT, (("left",), SOUNDS), CONTACT, (("still",), SOUNDS), ANY)
IMAGE_SCALE = 7  # the least side of an image is 300 pixels, that of a 64P picture 48


@dataclass(frozen=True, kw_only=True)
class Asked:
    clip_id: str
    scene: Scene
    prompt: str
    seed: int
    with_image: bool  # its first frame is given, and the prompt names neither colour nor shape

    def row(self, *, resolution: str) -> dict[str, Any]:
        """A row of the manifest."""
        row: dict[str, Any] = {"clip_id": self.clip_id, "prompt": self.prompt, "resolution": resolution}
        row |= {"duration": self.scene.duration_s, "seed": self.seed}
        if self.with_image:
            return row | {"image": {"bytes": first_frame_png(self.scene), "path": f"{self.clip_id}.png"}}
        return row | {"ratio": self.scene.ratio}


def held_out_prompts(count: int, *, seed: int = SEED, with_image: bool = False) -> list[Asked]:
    """The first `count` of an endless list for each seed; training draws from other seeds and other combinations."""
    kind = "image" if with_image else "text"
    rng = random.Random(f"judge/{kind}/{seed}")
    return [_ask(rng, f"{kind}-{n:03d}", *PLAN[n % len(PLAN)], with_image=with_image) for n in range(count)]


def _ask(
    rng: random.Random, clip_id: str, motions: tuple[str, ...], sounds: tuple[str, ...], *, with_image: bool
) -> Asked:
    duration_s = rng.choices(DURATIONS_S, DURATION_WEIGHTS)[0]
    ratio = rng.choices(list(RATIO_SIZES), RATIO_WEIGHTS)[0]
    places: Places = "any" if with_image else "centre"
    while True:
        scene = random_scene(rng, duration_s=duration_s, ratio=ratio, held_out=True, places=places)
        if scene.motion in motions and scene.sound in sounds:
            break
    return Asked(
        clip_id=clip_id,
        scene=scene,
        prompt=caption(scene, rng, name_subject=not with_image),
        seed=rng.randrange(1 << 31),
        with_image=with_image,
    )


def first_frame_png(scene: Scene) -> bytes:
    """The scene's first moment as a picture that someone could have drawn: large, with sharp edges."""
    pixels = draw_frames(scene, num_frames=1, fps=1, scale=IMAGE_SCALE)[0]
    file = io.BytesIO()
    Image.fromarray((pixels * 255).round().to(torch.uint8).numpy()).save(file, "PNG")
    return file.getvalue()
