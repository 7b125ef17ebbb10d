"""Trains the foal: `python -m model.foal.train --out DIR`. Torch, numpy and safetensors suffice.

Flow matching as in the released model's description: x_s = (1-s) x_0 + s noise, the target is noise - x_0. Every
step's scenes, wordings and noise follow from the seed and the step's number alone, so that resuming is exact.
"""

import argparse
import dataclasses
import json
import logging
import math
import random
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.codecs.foal import SLOTS_PER_LATENT, FoalAudioCodec, FoalVideoCodec
from model.config import TransformerConfig
from model.foal.captions import caption, vocabulary
from model.foal.codec_fit import fit_video_codec
from model.foal.scenes import RATIO_SIZES, Scene, draw_frames, draw_sound, random_scene
from model.sampling.prediction import clean_sample
from model.shapes import decoded_frames, latent_frames
from model.text import FoalTextEncoder
from model.transformer import Transformer

log = logging.getLogger(__name__)

FPS = 12
CODEC_CHANNELS = 48
FOAL = TransformerConfig(
    num_layers=7,
    hidden_size=192,
    head_dim=24,
    num_heads_q=8,
    num_heads_kv=4,
    video_in_channels=CODEC_CHANNELS * 4,
    audio_in_channels=64,
    text_in_channels=96,
    mm_layers=(0, 6),
    gelu7_layers=(0,),
    local_attn_layers=(),
    coords_style="v2",
    prediction="clean",
    place_frequencies=8,
)
ROPE_BANDS = (1.0, 0.45, 0.15)  # radians a latent cell: the released spacing is meant for longer clips
DURATIONS_S, DURATION_WEIGHTS = (3, 4, 5), (6, 2, 2)
RATIO_WEIGHTS = {"1:1": 6, "16:9": 2, "9:16": 2}
TEXT_DROPPED = 0.10  # batches with the empty prompt, for guidance
IMAGE_GIVEN = 0.25  # batches whose first latent frame is clean, for image-to-video
LOW_NOISE = 0.2  # below it a velocity error counts as if the noise were this high
SUBJECT_UNNAMED = 0.4  # of those, captions that name neither colour nor shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    seed: int
    num_steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 200
    ema_decay: float = 0.999
    weight_decay: float = 0.01
    audio_weight: float = 0.5  # of the audio loss beside the video loss


@dataclasses.dataclass(frozen=True)
class Batch:
    video: Tensor  # [n, C, T, H, W] clean latents
    audio: Tensor  # [n, L, 64]
    ids: Tensor  # [n, tokens]
    image_given: bool


class Foal(nn.Module):
    """What is trained together: the Transformer and the words it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = Transformer(FOAL, dtype=torch.float32)
        self.text = FoalTextEncoder(vocabulary(), channels=FOAL.text_in_channels)


def initialise(foal: Foal, *, seed: int) -> None:
    """Small normal weights, heads at zero."""
    generator = torch.Generator().manual_seed(seed)
    bands = foal.transformer.adapter.rope.bands
    bands.copy_(torch.tensor(ROPE_BANDS))
    for name, parameter in foal.named_parameters():
        if "norm" in name or name.endswith("bias") or "final_" in name:
            parameter.data.zero_()
        elif "embedding" in name:
            parameter.data.normal_(generator=generator)
        else:
            shrink = 1 / math.sqrt(2 * FOAL.num_layers) if "proj.weight" in name and "up_gate" not in name else 1.0
            parameter.data.normal_(std=parameter.shape[1] ** -0.5 * shrink, generator=generator)


def scene_latents(scene: Scene, codec: FoalVideoCodec) -> tuple[Tensor, Tensor]:
    """Clean latents of a scene: video [C, T, H, W] and audio [L, 64]."""
    num_frames = decoded_frames(latent_frames(scene.duration_s * FPS))
    num_audio = scene.duration_s * FPS + 1
    video = codec.encode(draw_frames(scene, num_frames=num_frames, fps=FPS))
    return video, FoalAudioCodec().encode(draw_sound(scene, num_slots=num_audio * SLOTS_PER_LATENT))


def draw_batch(step: int, *, training: Training, codec: FoalVideoCodec, text: FoalTextEncoder) -> Batch:
    """The batch of one step: clips of one length and ratio, short captions padded by repeating the end token."""
    rng = random.Random(f"{training.seed}/{step}")
    duration_s = rng.choices(DURATIONS_S, DURATION_WEIGHTS)[0]
    ratio = rng.choices(list(RATIO_SIZES), [RATIO_WEIGHTS[r] for r in RATIO_SIZES])[0]
    image_given, text_dropped = rng.random() < IMAGE_GIVEN, rng.random() < TEXT_DROPPED
    scenes = [random_scene(rng, duration_s=duration_s, ratio=ratio) for _ in range(training.batch_size)]
    prompts = [
        caption(scene, rng, name_subject=not (image_given and rng.random() < SUBJECT_UNNAMED)) for scene in scenes
    ]
    ids = [text.tokenize("" if text_dropped else prompt) for prompt in prompts]
    longest = max(map(len, ids))
    latents = [scene_latents(scene, codec) for scene in scenes]
    return Batch(
        video=torch.stack([video for video, _ in latents]),
        audio=torch.stack([audio for _, audio in latents]),
        ids=torch.tensor([row + row[-1:] * (longest - len(row)) for row in ids]),
        image_given=image_given,
    )


def noise_levels(count: int, *, generator: torch.Generator) -> Tensor:
    """Four in five from the sampler's own shifted grid, the others uniform: [count] in (0, 1)."""
    u = torch.rand(count, generator=generator) * 0.999
    return torch.where(torch.rand(count, generator=generator) < 0.8, 5 * u / (1 + 4 * u), u).clamp(min=0.02)


def flow_loss(foal: Foal, batch: Batch, *, generator: torch.Generator, audio_weight: float) -> tuple[Tensor, Tensor]:
    """Mean squared velocity errors of video and audio (the second already weighted), damped at low noise."""
    sigma = noise_levels(len(batch.video), generator=generator)
    video_noise = torch.randn(batch.video.shape, generator=generator)
    audio_noise = torch.randn(batch.audio.shape, generator=generator)
    s_video, s_audio = sigma[:, None, None, None, None], sigma[:, None, None]
    video = (1 - s_video) * batch.video + s_video * video_noise
    audio = (1 - s_audio) * batch.audio + s_audio * audio_noise
    if batch.image_given:
        video = torch.cat([batch.video[:, :, :1], video[:, :, 1:]], dim=2)
    with torch.autocast(video.device.type, torch.bfloat16):  # 1.4 x as fast on a CPU with bfloat16 instructions
        video_out, audio_out = foal.transformer(video, audio, foal.text.embed(batch.ids))
    video_error = (clean_sample(video_out, video, s_video) - batch.video) / s_video.clamp(min=LOW_NOISE)
    audio_error = (clean_sample(audio_out, audio, s_audio) - batch.audio) / s_audio.clamp(min=LOW_NOISE)
    first = 1 if batch.image_given else 0
    return video_error[:, :, first:].square().mean(), audio_weight * audio_error.square().mean()


def learning_rate(step: int, training: Training) -> float:
    """Linear warm-up, then a cosine to a fiftieth."""
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    progress = (step - training.warmup_steps) / max(1, training.num_steps - training.warmup_steps)
    return training.learning_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2)


def build_optimisers(foal: Foal, training: Training) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest; Muon needed a third fewer steps than AdamW alone."""
    is_matrix = {name: name.startswith("transformer.block") and p.dim() == 2 for name, p in foal.named_parameters()}
    matrices = [p for name, p in foal.named_parameters() if is_matrix[name]]
    others = [p for name, p in foal.named_parameters() if not is_matrix[name]]
    rate, decay = training.learning_rate, training.weight_decay
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, weight_decay=decay, betas=(0.9, 0.98)),
    ]


class Trainer:
    """Holds what resuming needs: weights, their moving average, the optimiser and the step's number."""

    def __init__(self, training: Training, *, codec: FoalVideoCodec) -> None:
        self.training, self.codec = training, codec
        self.foal, self.average = Foal(), Foal()
        initialise(self.foal, seed=training.seed)
        self.average.load_state_dict(self.foal.state_dict())
        self.optimisers = build_optimisers(self.foal, training)
        self.step = 0

    def advance(self) -> tuple[float, float]:
        """One optimiser step; returns the losses of video and audio."""
        batch = draw_batch(self.step, training=self.training, codec=self.codec, text=self.foal.text)
        generator = torch.Generator().manual_seed(self.training.seed * 1_000_003 + self.step)
        losses = flow_loss(self.foal, batch, generator=generator, audio_weight=self.training.audio_weight)
        self.foal.zero_grad(set_to_none=True)
        (losses[0] + losses[1]).backward()
        nn.utils.clip_grad_norm_(self.foal.parameters(), 1.0)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(self.step, self.training)
            optimiser.step()
        self.step += 1
        decay = min(self.training.ema_decay, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.foal.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        return losses[0].item(), losses[1].item() / self.training.audio_weight

    def save(self, path: Path) -> None:
        state = {
            "training": dataclasses.asdict(self.training),
            "step": self.step,
            "foal": self.foal.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Continue from `save`. Raises ValueError where the settings are not those it was saved with."""
        state = torch.load(path, weights_only=True)
        if state["training"] != dataclasses.asdict(self.training):
            raise ValueError(f"{path} was trained with {state['training']}, not with {self.training}")
        self.foal.load_state_dict(state["foal"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step = state["step"]


def export(foal: Foal, codec: FoalVideoCodec, folder: Path) -> None:
    """Write the weights root that the loader reads; block linears in bfloat16 as in the released layout."""
    transformer = {
        name: tensor.to(torch.bfloat16).contiguous()
        if name.startswith("block.") and "norm" not in name
        else tensor.contiguous()
        for name, tensor in foal.transformer.state_dict().items()
    }
    words = [word for word in foal.text.words if not word.startswith("<")]
    parts = {
        "base": (transformer, None),
        "codec": (codec.state_dict(), None),
        "text": (foal.text.state_dict(), {"vocabulary": json.dumps(words)}),
    }
    for name, (tensors, metadata) in parts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / name / "model.safetensors", metadata)


def train(training: Training, *, out: Path, save_every: int) -> None:
    """Train to the last step, saving as it goes; a second call continues where the first stopped."""
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(training, codec=fit_video_codec(CODEC_CHANNELS, seed=training.seed, fps=FPS))
    state = out / "state.pt"
    if state.exists():
        trainer.resume(state)
        log.info("resumed at step %d", trainer.step)
    with (out / "log.jsonl").open("a") as lines:
        while trainer.step < training.num_steps:
            start = time.process_time()
            video, audio = trainer.advance()
            row = {"step": trainer.step, "video": round(video, 5), "audio": round(audio, 5)}
            row["cpu_s"] = round(time.process_time() - start, 3)
            lines.write(json.dumps(row) + "\n")
            if trainer.step % 100 == 0:
                lines.flush()
                log.info("%s", row)
            if trainer.step % save_every == 0 or trainer.step == training.num_steps:
                trainer.save(state)
                export(trainer.average, trainer.codec, out / "weights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("training/foal"))
    parser.add_argument("--steps", type=int, default=5200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=500)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    training = Training(
        seed=options.seed,
        num_steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
    )
    train(training, out=options.out, save_every=options.save_every)


if __name__ == "__main__":
    main()
