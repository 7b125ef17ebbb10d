"""The single-stream Transformer: latents and text in, velocities out. Module names are the released checkpoints'.

n batch, C latent channels, T H W latent frames and cells, L audio latents, S tokens.
"""

from functools import lru_cache

import torch
from torch import Tensor, nn

from model.config import CoordsStyle, TransformerConfig
from model.layers import ExpertNorm, Layer, Sequence, side_by_side
from model.positions import coordinates, place_features, rotary_table


def patchify(video: Tensor) -> Tensor:
    """[n, C, T, H, W] -> [n, T*(H/2)*(W/2), 4C]; channels of a token run (C, ph, pw), latent channel slowest."""
    n, c, t, h, w = video.shape
    patches = video.reshape(n, c, t, h // 2, 2, w // 2, 2).permute(0, 2, 3, 5, 1, 4, 6)
    return patches.reshape(n, t * (h // 2) * (w // 2), 4 * c)


def unpatchify(tokens: Tensor, *, shape: torch.Size) -> Tensor:
    """The head's order is another one, (ph, pw, C) with the latent channel fastest: [n, S, 4C] -> [n, C, T, H, W]."""
    n, c, t, h, w = shape
    patches = tokens.reshape(n, t, h // 2, w // 2, 2, 2, c).permute(0, 6, 1, 2, 4, 3, 5)
    return patches.reshape(n, c, t, h, w)


@lru_cache(maxsize=8)  # two texts and two stages of a clip, and of the next
def _coordinates_on(
    device: torch.device, video_grid: tuple[int, int, int], *, audio_length: int, text_length: int, style: CoordsStyle
) -> Tensor:
    """They are made on the CPU, and a copy makes the CPU wait for the GPU: once a clip, not once a step."""
    return coordinates(video_grid, audio_length=audio_length, text_length=text_length, style=style).to(device)


class Rope(nn.Module):
    bands: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("bands", torch.empty(head_dim // 8, dtype=torch.float32))


class Adapter(nn.Module):
    """One embedder for each modality, in float32."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.video_embedder = nn.Linear(config.video_in_channels, config.hidden_size)
        self.audio_embedder = nn.Linear(config.audio_in_channels, config.hidden_size)
        self.text_embedder = nn.Linear(config.text_in_channels, config.hidden_size)
        self.rope = Rope(config.head_dim)
        self.place_frequencies = config.place_frequencies
        if config.place_frequencies:
            self.place_embedder = nn.Linear(8 * config.place_frequencies, config.hidden_size, bias=False)

    def forward(self, video: Tensor, audio: Tensor, text: Tensor, coords: Tensor) -> Tensor:
        x = torch.cat([self.video_embedder(video), self.audio_embedder(audio)], dim=-2)
        if self.place_frequencies:
            x = x + self.place_embedder(place_features(coords[: x.shape[-2]], self.place_frequencies))
        return torch.cat([x, self.text_embedder(text)], dim=-2)


class Block(nn.Module):
    def __init__(self, config: TransformerConfig, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, layer=n, dtype=dtype) for n in range(config.num_layers))


class Transformer(nn.Module):
    """`dtype` is that of the block's linear maps and of attention; everything else is float32."""

    def __init__(self, config: TransformerConfig, *, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.config = config
        self.adapter = Adapter(config)
        self.block = Block(config, dtype=dtype)
        self.final_norm_video = ExpertNorm(config.hidden_size)
        self.final_norm_audio = ExpertNorm(config.hidden_size)
        self.final_linear_video = nn.Linear(config.hidden_size, config.video_in_channels, bias=False)
        self.final_linear_audio = nn.Linear(config.hidden_size, config.audio_in_channels, bias=False)

    def forward(self, video: Tensor, audio: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """What the heads give for video [n, C, T, H, W] and audio [n, L, Ca], given text [n, tokens, Ct]; float32."""
        return self.forward_each(video, audio, [text])[0]

    def forward_each(self, video: Tensor, audio: Tensor, texts: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """`forward` for one video and audio and each of several texts, in a single pass over the weights."""
        patches = patchify(video)
        coords = [self._coordinates(video, audio, text) for text in texts]
        streams = [self.adapter(patches, audio, text, at) for text, at in zip(texts, coords, strict=True)]
        tables = [rotary_table(at, self.adapter.rope.bands) for at in coords]
        passes = tuple((patches.shape[1], audio.shape[1], text.shape[1]) for text in texts)
        sin, cos = (side_by_side([table[part] for table in tables], passes) for part in (0, 1))
        sequence = Sequence(passes=passes, rotary=(sin[None], cos[None]), num_frames=video.shape[2])
        x = side_by_side(streams, passes)
        for layer in self.block.layers:
            x = layer(x, sequence)
        return [
            self._heads(stream, sizes, shape=video.shape)
            for stream, sizes in zip(sequence.split(x), passes, strict=True)
        ]

    def _coordinates(self, video: Tensor, audio: Tensor, text: Tensor) -> Tensor:
        num_frames, height, width = video.shape[2:]
        return _coordinates_on(
            video.device,
            (num_frames, height // 2, width // 2),
            audio_length=audio.shape[1],
            text_length=text.shape[1],
            style=self.config.coords_style,
        )

    def _heads(self, x: Tensor, sizes: tuple[int, int, int], *, shape: torch.Size) -> tuple[Tensor, Tensor]:
        video, audio, _ = x.split(sizes, dim=-2)
        video_out = self.final_linear_video(self.final_norm_video(video))
        audio_out = self.final_linear_audio(self.final_norm_audio(audio))
        return unpatchify(video_out, shape=shape), audio_out
