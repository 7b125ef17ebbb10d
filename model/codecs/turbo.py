"""The released Turbo decoder: 48-channel video latents to RGB, window by window, so that memory does not grow with
the clip. Module names are the checkpoint's. n batch, C channels, T H W frames and cells.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.codecs.normalisation import denormalised, eight_bit

NORM_EPS = 1e-8
FRAMES_A_LATENT = 4
RESIDUAL_REACH = 2  # rows to either side that a residual unit's two convolutions read


@dataclass(frozen=True, kw_only=True)
class TurboConfig:
    """The fields of the released JSON that decide the decoder; lists run in encoder order, as released."""

    latent_channels: int
    out_channels: int
    patch_size: int
    decoder_block_out_channels: tuple[int, ...]
    decoder_layers_per_block: tuple[int, ...]
    decoder_spatio_temporal_scaling: tuple[bool, ...]
    decoder_spatio_only: tuple[bool, ...]
    resnet_norm_eps: float
    first_chunk_size: int  # latent frames of the first window
    step_size: int  # of each later one

    def __post_init__(self) -> None:
        blocks = len(self.decoder_block_out_channels)
        for name, length in (
            ("decoder_layers_per_block", blocks + 1),
            ("decoder_spatio_temporal_scaling", blocks),
            ("decoder_spatio_only", blocks),
        ):
            if len(getattr(self, name)) != length:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries, expected {length}")
        if self.first_chunk_size < 1 or self.step_size < 1:
            raise ValueError(f"windows of {self.first_chunk_size} and {self.step_size} frames, expected at least 1")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TurboConfig":
        """Takes the released config; raises ValueError where it asks for what this decoder does not do."""
        for name, only in (("decoder_causal", False), ("use_unpatchify", True), ("patch_size_t", 1)):
            if values.get(name, only) != only:
                raise ValueError(f"{name} is {values[name]}, only {only} is known")
        if any(values.get("decoder_is_dw_conv", ())):
            raise ValueError("decoder_is_dw_conv: depthwise convolutions are not known")
        missing = [name for name in cls.__dataclass_fields__ if name not in values]
        if missing:
            raise ValueError(f"the Turbo config lacks {', '.join(missing)}")
        taken: dict[str, Any] = {name: values[name] for name in cls.__dataclass_fields__}
        for name, value in taken.items():
            taken[name] = tuple(value) if isinstance(value, list) else value
        return cls(**taken)


def _rms(x: Tensor, eps: float = NORM_EPS) -> Tensor:
    """Over channels (dim 1), without weight; statistics in float32."""
    scale = torch.rsqrt(x.float().square().mean(dim=1, keepdim=True) + eps)
    return (x.float() * scale).to(x.dtype)


class Conv(nn.Module):
    """A 3-D convolution that repeats the edge frame in time on both sides and pads space with zeros."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int]) -> None:
        super().__init__()
        self.time_padding = kernel[0] // 2
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))

    def forward(self, x: Tensor) -> Tensor:
        if self.time_padding:
            edges = (0, 0, 0, 0, self.time_padding, self.time_padding)
            x = functional.pad(x, edges, mode="replicate")
        out: Tensor = self.conv(x)
        return out


class Residual(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, *, shortcut_eps: float, relu_first: bool = False) -> None:
        super().__init__()
        self.relu_first, self.shortcut_eps = relu_first, shortcut_eps
        self.conv1 = Conv(in_channels, out_channels, (3, 3, 3))
        self.conv2 = Conv(out_channels, out_channels, (3, 3, 3))
        self.conv_shortcut = Conv(in_channels, out_channels, (1, 1, 1)) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        activated = functional.relu(_rms(x)) if self.relu_first else functional.silu(_rms(x))
        hidden: Tensor = self.conv2(functional.silu(_rms(self.conv1(activated))))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(_rms(x, self.shortcut_eps))
        return x + hidden


class Upsampler(nn.Module):
    """Doubles height and width, and the number of frames where it stretches time."""

    def __init__(self, channels: int, *, stretches_time: bool) -> None:
        super().__init__()
        self.time_conv = Conv(channels, 2 * channels, (3, 1, 1)) if stretches_time else None
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest-exact"), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor, *, is_first: bool) -> Tensor:
        if self.time_conv is not None:
            earlier, later = self.time_conv(x).chunk(2, dim=1)
            x = torch.stack([earlier, later], dim=3).flatten(2, 3)
            x = x[:, :, 1:] if is_first else x
        n, c, t, h, w = x.shape
        flat: Tensor = self.resample(x.transpose(1, 2).reshape(n * t, c, h, w))
        return flat.reshape(n, t, c, 2 * h, 2 * w).transpose(1, 2)


class UpBlock(nn.Module):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_layers: int,
        *,
        config: TurboConfig,
        upsamples: bool,
        space_only: bool,
    ) -> None:
        super().__init__()
        eps = config.resnet_norm_eps
        self.upsamples = upsamples
        changes = in_channels != out_channels
        self.conv_in = Residual(in_channels, out_channels, shortcut_eps=eps) if changes else None
        ups = [Upsampler(out_channels, stretches_time=not space_only)] if upsamples else []
        self.upsamplers = nn.ModuleList(ups)
        self.resnets = nn.ModuleList(
            Residual(out_channels, out_channels, shortcut_eps=eps, relu_first=upsamples) for _ in range(num_layers)
        )

    def reach(self, rows: int) -> int:
        """How many rows of its input, beyond those below its output, decide the output and `rows` more beyond it."""
        rows += RESIDUAL_REACH * len(self.resnets)
        if self.upsamples:
            rows = -(-(rows + 1) // 2)
        return rows + (RESIDUAL_REACH if self.conv_in is not None else 0)

    def forward(self, x: Tensor, *, is_first: bool) -> Tensor:
        if self.conv_in is not None:
            x = self.conv_in(x)
        for upsampler in self.upsamplers:
            x = upsampler(x, is_first=is_first)
        for unit in self.resnets:
            x = unit(x)
        return x


class MidBlock(nn.Module):
    def __init__(self, channels: int, num_layers: int, *, shortcut_eps: float) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(Residual(channels, channels, shortcut_eps=shortcut_eps) for _ in range(num_layers))

    def forward(self, x: Tensor) -> Tensor:
        for unit in self.resnets:
            x = unit(x)
        return x


class Decoder(nn.Module):
    """One window: normalisation is undone already."""

    def __init__(self, config: TurboConfig) -> None:
        super().__init__()
        channels = config.decoder_block_out_channels[::-1]
        layers = config.decoder_layers_per_block[::-1]
        self.patch_size = config.patch_size
        self.conv_in = Conv(config.latent_channels, channels[0], (3, 3, 3))
        self.mid_block = MidBlock(channels[0], layers[0], shortcut_eps=config.resnet_norm_eps)
        blocks = zip(
            (channels[0], *channels[:-1]),
            channels,
            layers[1:],
            config.decoder_spatio_temporal_scaling[::-1],
            config.decoder_spatio_only[::-1],
            strict=True,
        )
        self.up_blocks = nn.ModuleList(
            UpBlock(before, after, count, config=config, upsamples=upsamples, space_only=space_only)
            for before, after, count, upsamples, space_only in blocks
        )
        self.conv_out = Conv(channels[-1], config.out_channels * config.patch_size**2, (3, 3, 3))

    def forward(self, latent: Tensor, *, is_first: bool, band_rows: int = 0) -> Tensor:
        """[n, C, T, H, W] -> [n, 3, T', 16H, 16W] in about -1..1; T' is 4T-3 in the first window, else 4T.

        With `band_rows` no more than so many rows of the picture are computed at a time where it is large.
        """
        x: Tensor = self.mid_block(self.conv_in(latent))
        parts = self._parts()
        for n, part in enumerate(parts):
            pixels = self.patch_size * 2 ** sum(block.upsamples for each in parts[n:] for block in each)  # a row of x
            rows = -(-band_rows // pixels)
            x = in_bands(partial(self._run, part, is_first=is_first), x, rows=rows, reach=self._reach(part))
        return x

    def _parts(self) -> list[list[UpBlock]]:
        """The up blocks; those that do not upsample go with the one before, so that its large output is never whole."""
        parts: list[list[UpBlock]] = [[]]
        for block in self.up_blocks:
            assert isinstance(block, UpBlock)
            if block.upsamples and parts[-1]:
                parts.append([])
            parts[-1].append(block)
        return parts

    def _is_last(self, part: list[UpBlock]) -> bool:
        return part[-1] is self.up_blocks[-1]

    def _reach(self, part: list[UpBlock]) -> int:
        rows = 1 if self._is_last(part) else 0  # conv_out's
        for block in reversed(part):
            rows = block.reach(rows)
        return rows

    def _run(self, part: list[UpBlock], x: Tensor, *, is_first: bool) -> Tensor:
        for block in part:
            x = block(x, is_first=is_first)
        return self._pixels(x) if self._is_last(part) else x

    def _pixels(self, x: Tensor) -> Tensor:
        x = self.conv_out(functional.silu(_rms(x)))
        n, _, t, h, w = x.shape
        p = self.patch_size
        pixels: Tensor = x.reshape(n, -1, p, p, t, h, w)  # channels run (RGB, column offset, row offset)
        return pixels.permute(0, 1, 4, 5, 3, 6, 2).reshape(n, -1, t, h * p, w * p)


def in_bands(run: Callable[[Tensor], Tensor], x: Tensor, *, rows: int, reach: int) -> Tensor:
    """`run(x)` of [n, C, T, H, W], computed from `rows` rows at a time and `reach` rows beside them.

    Equal where an output row depends on no input row farther than that: what a band's own edge spoils is cut away. The
    picture's edges are the first and last band's. `rows` of 0: all at once.
    """
    height = x.shape[3]
    if not 0 < rows < height:
        return run(x)
    bands = []
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        first, last = max(0, start - reach), min(height, stop + reach)
        made = run(x[:, :, :, first:last])
        scale = made.shape[3] // (last - first)
        bands.append(made[:, :, :, (start - first) * scale : (stop - first) * scale].clone())  # the rest can go
    return torch.cat(bands, dim=3)


class TurboDecoder(nn.Module):
    """Windows of latents to windows of frames; `dtype` of the released run is bfloat16."""

    def __init__(self, config: TurboConfig) -> None:
        super().__init__()
        self.config = config
        self.band_rows = 0  # of the picture, computed at a time; 0: all
        self.decoder = Decoder(config)

    def windows(self, latent: Tensor) -> Iterator[Tensor]:
        """[C, T, H, W] -> pieces of [3, frames, 16H, 16W] in order, 4(T-1)+1 frames in all."""
        num_latent = latent.shape[1]
        first, step = self.config.first_chunk_size, self.config.step_size
        num_padded = max(first, first + -(-(num_latent - first) // step) * step)
        latent = torch.cat([latent, latent[:, -1:].expand(-1, num_padded - num_latent, -1, -1)], dim=1)
        left = FRAMES_A_LATENT * (num_latent - 1) + 1
        for start in [0, *range(first, num_padded, step)]:
            stop = start + (step if start else first)
            frames = self._window(latent, start, stop)[:, :left]
            left -= frames.shape[1]
            if frames.shape[1]:
                yield frames

    def _window(self, latent: Tensor, start: int, stop: int) -> Tensor:
        """Frames of latents start..stop, computed with one latent of context on each inner side."""
        before, after = int(start > 0), int(stop < latent.shape[1])
        weight = self.decoder.conv_in.conv.weight
        dtype = weight.dtype
        piece = denormalised(latent[:, start - before : stop + after].to(weight.device, dtype).float())
        frames: Tensor = self.decoder(piece[None].to(dtype), is_first=start == 0, band_rows=self.band_rows)[0]
        return frames[:, before * FRAMES_A_LATENT : frames.shape[1] - after * FRAMES_A_LATENT]

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Iterator[Tensor]:
        """[C, T, H, W] -> windows of uint8 frames [n, height, width, 3]."""
        for frames in self.windows(latent):
            yield eight_bit(frames)
