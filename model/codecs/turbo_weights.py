"""The Turbo decoder as released: its JSON config, and a `.ckpt` whose `ema_state_dict` holds `decoder.*`."""

import torch
from torch import Tensor

from model.codecs.parts import TURBO, built_from, only_file, read_json
from model.codecs.turbo import TurboConfig, TurboDecoder
from model.weights import WeightReader, WeightsMismatch, check_state, read_checkpoint


def load_turbo(reader: WeightReader, *, dtype: torch.dtype, device: str, band_rows: int = 0) -> TurboDecoder:
    """Strictly, from `turbo_vae/`. Raises WeightsMismatch."""
    decoder, stored = _decoder_and_tensors(reader)
    state = {key: tensor.to(device, dtype, copy=True) for key, tensor in stored.items()}  # they lie in the file
    decoder.load_state_dict(state, strict=True, assign=True)
    decoder.band_rows = band_rows
    return decoder.eval().requires_grad_(False)


def check_turbo(reader: WeightReader) -> None:
    """Whether `turbo_vae/` can be loaded. Raises WeightsMismatch."""
    _decoder_and_tensors(reader)


def turbo_config(reader: WeightReader) -> TurboConfig:
    name = only_file(reader, TURBO, ".json")
    values = read_json(reader, name)
    try:
        config = TurboConfig.from_json(values)
        if not isinstance(config.resnet_norm_eps, int | float):  # all others decide shapes
            raise TypeError(f"resnet_norm_eps is {config.resnet_norm_eps!r}, expected a number")
    except (ValueError, TypeError) as error:
        raise WeightsMismatch(f"{name}: {error}") from error
    return config


def _decoder_and_tensors(reader: WeightReader) -> tuple[TurboDecoder, dict[str, Tensor]]:
    """The decoder without memory, and the checkpoint's tensors for it, mapped where the file is local."""
    config = turbo_config(reader)
    with torch.device("meta"):
        decoder = built_from(only_file(reader, TURBO, ".json"), lambda: TurboDecoder(config))
    name = only_file(reader, TURBO, ".ckpt")
    saved = read_checkpoint(reader, name)
    stored = {key: tensor for key, tensor in saved.items() if key.startswith("decoder.")}  # an encoder may be there too
    check_state(stored, decoder.state_dict(), what=name)
    return decoder, stored
