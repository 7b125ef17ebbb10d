"""Small networks in the place of Transformers, whose answers a test can work out by hand."""

from pathlib import Path

import torch
from torch import Tensor, nn

from model.codecs.foal import FoalVideoCodec
from model.foal.captions import vocabulary
from model.foal.codec_training import CHANNELS
from model.foal.flow import BASE
from model.text import FoalTextEncoder

NOWHERE = Path("nothing/is/written")


class Field(nn.Module):
    """Linear in what is noisy and in the text's mean; keeps what it was last shown."""

    def __init__(self, share: float, pull: float) -> None:
        super().__init__()
        self.share, self.pull = nn.Parameter(torch.tensor(share)), nn.Parameter(torch.tensor(pull))
        self.seen: tuple[Tensor, Tensor, Tensor] | None = None

    def __deepcopy__(self, memo: object) -> "Field":
        return Field(self.share.item(), self.pull.item())

    def forward(self, video: Tensor, audio: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        self.seen = video, audio, text
        pull = self.pull * text.mean((1, 2))
        around = video.mean(2, keepdim=True)  # each frame sees all
        return self.share * video + around + pull.view(-1, 1, 1, 1, 1), self.share * audio - pull.view(-1, 1, 1)


def any_codec() -> FoalVideoCodec:
    torch.manual_seed(1)
    return FoalVideoCodec(CHANNELS).requires_grad_(False)


def any_text() -> FoalTextEncoder:
    torch.manual_seed(2)
    return FoalTextEncoder(vocabulary(), channels=BASE.text_in_channels).requires_grad_(False)
