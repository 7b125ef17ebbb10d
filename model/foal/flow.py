"""Trains the foal's base Transformer by flow matching: x_s = (1-s) x_0 + s noise, as in the released model.

Its heads give the clean sample; an error counts as that of the velocity noise - x_0, damped at low noise.
n batch, C latent channels, T H W latent frames and cells, L audio latents.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.codecs.foal import FoalVideoCodec
from model.config import TransformerConfig
from model.foal.batches import Batch, Clips, Noise
from model.foal.codec_training import CHANNELS
from model.foal.training import Recipe, Task
from model.sampling.prediction import clean_sample
from model.text import FoalTextEncoder
from model.transformer import Transformer

BASE = TransformerConfig(
    num_layers=7,
    hidden_size=192,
    head_dim=24,
    num_heads_q=8,
    num_heads_kv=4,
    video_in_channels=CHANNELS * 4,
    audio_in_channels=64,
    text_in_channels=192,
    mm_layers=(0, 6),
    gelu7_layers=(0,),
    local_attn_layers=(),
    coords_style="v2",
    prediction="clean",
    place_frequencies=8,
)
ROPE_BANDS = (1.0, 0.45, 0.15)  # radians a latent cell: the released spacing is meant for longer clips
LOW_NOISE = 0.5  # below it a velocity error counts as if the noise were this high
AUDIO_WEIGHT = 4.0  # of the audio loss beside the video loss: most of its 64 channels are always silent


class FlowTask(Task):
    def __init__(
        self, recipe: Recipe, *, codec: FoalVideoCodec, text: FoalTextEncoder, weights: Path, device: str
    ) -> None:
        self.recipe, self.weights = recipe, weights
        self.clips = Clips(
            seed=recipe.seed,
            size=recipe.batch_size,
            codec=codec,
            text=text,
            device=device,
        )
        self.model: Transformer = Transformer(BASE, dtype=torch.float32)
        initialise(self.model, seed=recipe.seed)
        self.model.to(device)

    def losses(self, step: int, average: nn.Module) -> dict[str, Tensor]:
        batch, noise = self.clips.draw(step)
        sigma = noise_levels(len(batch.video), noise)
        video = hold_given(mixed(batch.video, noise.like(batch.video), sigma), batch.video, batch)
        audio = mixed(batch.audio, noise.like(batch.audio), sigma)
        clean_video, clean_audio = predict(self.model, video, audio, batch.text, sigma)
        return {
            "video": (batch.weight * velocity_error(clean_video, batch.video, sigma))[:, :, batch.num_given :].mean(),
            "audio": AUDIO_WEIGHT * velocity_error(clean_audio, batch.audio, sigma).mean(),
        }

    def export(self, average: nn.Module) -> None:
        export_transformer(average, self.weights / "base")


def initialise(model: Transformer, *, seed: int) -> None:
    """Small normal weights, heads at zero."""
    generator = torch.Generator().manual_seed(seed)
    model.adapter.rope.bands.copy_(torch.tensor(ROPE_BANDS))
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias") or "final_" in name:
            parameter.data.zero_()
        else:
            shrink = (2 * model.config.num_layers) ** -0.5 if "proj.weight" in name and "up_gate" not in name else 1.0
            parameter.data.normal_(std=parameter.shape[1] ** -0.5 * shrink, generator=generator)


def noise_levels(count: int, noise: Noise) -> Tensor:
    """Four in five from the sampler's own shifted grid, the others uniform: [count] in (0, 1)."""
    u = noise.uniform(count) * 0.999
    return torch.where(noise.uniform(count) < 0.8, 5 * u / (1 + 4 * u), u).clamp(min=0.02)


def beside(sigma: Tensor, like: Tensor) -> Tensor:
    """[n] -> [n, 1, ...], to be multiplied with `like`."""
    return sigma.view(-1, *[1] * (like.dim() - 1))


def mixed(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """`clean` [n, ...] at the noise levels [n]."""
    s = beside(sigma, clean)
    return (1 - s) * clean + s * noise


def hold_given(video: Tensor, clean: Tensor, batch: Batch) -> Tensor:
    """With the clean first frame where an image is given."""
    return torch.cat([clean[:, :, : batch.num_given], video[:, :, batch.num_given :]], dim=2)


def predict(model: nn.Module, video: Tensor, audio: Tensor, text: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The clean samples that a model sees in noisy ones."""
    with torch.autocast(video.device.type, torch.bfloat16):
        video_out, audio_out = model(video, audio, text)
    return (
        clean_sample(video_out.float(), video, beside(sigma, video)),
        clean_sample(audio_out.float(), audio, beside(sigma, audio)),
    )


def velocity_error(got: Tensor, wanted: Tensor, sigma: Tensor) -> Tensor:
    """Squared error of each element, as of the velocity."""
    return ((got - wanted) / beside(sigma, got).clamp(min=LOW_NOISE)).square()


def export_transformer(model: nn.Module, folder: Path) -> None:
    """Block linears in bfloat16 as in the released layout."""
    tensors = {
        name: (tensor.to(torch.bfloat16) if name.startswith("block.") and "norm" not in name else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
