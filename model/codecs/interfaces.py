"""What every codec and text encoder looks like from outside. Implementations: beside this file, `model/text*.py`.

C latent channels, T latent frames, H and W latent cells, L audio latents, n text tokens.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor


class ImageEncoder(Protocol):
    def encode_image(self, image: Tensor, /) -> Tensor:
        """uint8 [height, width, 3] at the decoded size -> float32 latent [C, 1, H, W]."""
        ...


class VideoDecoder(Protocol):
    def decode(self, latent: Tensor, /) -> Iterator[Tensor]:
        """float32 [C, T, H, W] -> windows of uint8 frames [n, height, width, 3], in order, 4(T-1)+1 in all."""
        ...


class AudioDecoder(Protocol):
    sample_rate_hz: int

    def decode(self, latent: Tensor, /) -> Tensor:
        """float32 [L, C] -> float32 waveform [channels, samples] in -1..1, at `sample_rate_hz`."""
        ...


class SoundEncoder(Protocol):
    encoded_rate_hz: int

    def encode_sound(self, waveform: Tensor, /, *, num_latents: int) -> Tensor:
        """float32 mono [samples] at `encoded_rate_hz` -> float32 latent [num_latents, C]; silence fills the last."""
        ...


class TextEncoder(Protocol):
    def count_tokens(self, prompt: str, /) -> int: ...

    def encode(self, prompts: Sequence[str], /) -> list[Tensor]:
        """Prompts -> one float32 [n, text channels] each, in order; n differs, no padding."""
        ...
