"""Trains the foal, part after part: `python -m model.foal.train --out DIR`. torch, numpy and safetensors suffice.

codec               pictures to latents and back
base                text to clips, guided
distilled           the same in few steps, one forward each; learns from base
super_resolution    64P to 128P

Each part needs the codec's weights below DIR/weights, and `distilled` those of `base`; a part that stopped goes on
where it was. DIR/<part> keeps its state, log and curves; DIR/weights is what `weights=` of a render takes.
"""

import argparse
import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from model.codecs.foal import FoalVideoCodec
from model.config import SamplingConfig
from model.foal.captions import vocabulary
from model.foal.codec_training import CHANNELS, CodecTask
from model.foal.curves import write_curves
from model.foal.distillation import DistillationTask
from model.foal.flow import BASE, FlowTask
from model.foal.super_resolution import SuperResolutionTask
from model.foal.training import Recipe, Task, check_state, fit, is_finished
from model.text import FoalTextEncoder
from model.transformer import Transformer

RECIPES: Mapping[str, Recipe] = {  # model/foal/README.md says how the weights in the package differ
    "codec": Recipe(seed=1, steps=3200, batch_size=8, learning_rate=2e-3, warmup_steps=100),
    "base": Recipe(seed=1, steps=9000, batch_size=8, learning_rate=5e-3),
    "distilled": Recipe(seed=2, steps=600, batch_size=8, learning_rate=1e-3, warmup_steps=50, ema_decay=0.99),
    "super_resolution": Recipe(seed=3, steps=3300, batch_size=4, learning_rate=5e-3, ema_decay=0.99),
}
NEEDED: Mapping[str, tuple[str, ...]] = {
    "codec": (),
    "base": ("codec",),
    "distilled": ("codec", "base"),
    "super_resolution": ("codec",),
}
SAMPLING = SamplingConfig(video_guidance=3.0, video_guidance_late=2.0, audio_guidance=1.5)  # as conf/model/foal.yaml


def plan(parts: Sequence[str], *, steps: int | None, seed: int | None, out: Path) -> dict[str, Recipe]:
    """What to train, in this order, with other steps or another seed than the recorded ones where they are given.

    Raises ValueError for a part that is unknown, lacks one that it needs, or was begun with another recipe.
    """
    given = {name: value for name, value in (("steps", steps), ("seed", seed)) if value is not None}
    recipes: dict[str, Recipe] = {}
    for part in parts:
        if part not in RECIPES:
            raise ValueError(f"unknown part {part!r}, expected some of {', '.join(RECIPES)}")
        missing = [each for each in NEEDED[part] if each not in recipes and not is_trained(each, out=out)]
        if missing:
            raise ValueError(f"{part} needs {' and '.join(missing)}, not trained to the end in {out}")
        recipes[part] = dataclasses.replace(RECIPES[part], **given)
        check_state(out / part / "state.pt", recipes[part])
    return recipes


def is_trained(part: str, *, out: Path) -> bool:
    """Whether its weights are there. Without the state of their training, who put them there knows."""
    state = out / part / "state.pt"
    is_whole = not state.exists() or is_finished(state)
    return is_whole and (out / "weights" / part / "model.safetensors").exists()


def train(part: str, recipe: Recipe, *, out: Path, save_every: int, device: str = "cpu") -> None:
    """One part. Raises FileNotFoundError where the parts that it needs were not trained."""
    fit(build_task(part, recipe, weights=out / "weights", device=device), out=out / part, save_every=save_every)
    write_curves(out / part)


def build_task(part: str, recipe: Recipe, *, weights: Path, device: str) -> Task:
    if part == "codec":
        return CodecTask(recipe, weights=weights, device=device)
    codec = load_codec(weights)
    text = save_text(weights)
    if part == "base":
        return FlowTask(recipe, codec=codec, text=text, weights=weights, device=device)
    if part == "super_resolution":
        return SuperResolutionTask(recipe, codec=codec, text=text, weights=weights, device=device)
    teacher = Transformer(BASE, dtype=torch.float32)
    teacher.load_state_dict(load_file(weights / "base" / "model.safetensors"))
    return DistillationTask(
        recipe, teacher=teacher, sampling=SAMPLING, codec=codec, text=text, weights=weights, device=device
    )


def load_codec(weights: Path) -> FoalVideoCodec:
    codec = FoalVideoCodec.as_stored(CHANNELS)
    codec.load_state_dict(load_file(weights / "codec" / "model.safetensors"))
    return codec.float()


def save_text(weights: Path) -> FoalTextEncoder:
    """The words are drawn, not trained: the same numbers in every training, so that the parts fit each other."""
    text = FoalTextEncoder(vocabulary(), channels=BASE.text_in_channels)
    torch.nn.init.normal_(text.embedding.weight, generator=torch.Generator().manual_seed(1))
    words = [word for word in text.words if not word.startswith("<")]
    (weights / "text").mkdir(parents=True, exist_ok=True)
    save_file(text.state_dict(), weights / "text" / "model.safetensors", {"vocabulary": json.dumps(words)})
    return text.requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("training/foal"))
    parser.add_argument("--parts", nargs="+", choices=[*RECIPES], default=[*RECIPES])
    parser.add_argument("--steps", type=int, help="of each part, instead of the recorded ones")
    parser.add_argument("--seed", type=int, help="of each part, instead of the recorded ones")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    try:
        recipes = plan(options.parts, steps=options.steps, seed=options.seed, out=options.out)
    except ValueError as error:
        parser.error(str(error))
    for part, recipe in recipes.items():
        train(part, recipe, out=options.out, save_every=options.save_every, device=options.device)


if __name__ == "__main__":
    main()
