"""The Turbo decoder as released: its JSON config, and a `.ckpt` whose `ema_state_dict` holds `decoder.*`."""

import io
import pickle

import torch
from torch import Tensor

from model.codecs.parts import TURBO, only_file, read_json
from model.codecs.turbo import TurboConfig, TurboDecoder
from model.weights import WeightReader, WeightsMismatch


def load_turbo(reader: WeightReader, *, dtype: torch.dtype, device: str) -> TurboDecoder:
    """Strictly, from `turbo_vae/`. Raises WeightsMismatch."""
    config = turbo_config(reader)
    with torch.device("meta"):
        decoder = TurboDecoder(config)
    name = only_file(reader, TURBO, ".ckpt")
    stored = ema_state(reader, name)
    expected = decoder.state_dict()
    wrong = [f"{key} is missing" for key in expected.keys() - stored.keys()]
    wrong += [f"{key} is unexpected" for key in stored.keys() - expected.keys()]
    wrong += [
        f"{key} is {list(stored[key].shape)}, expected {list(tensor.shape)}"
        for key, tensor in expected.items()
        if key in stored and stored[key].shape != tensor.shape
    ]
    if wrong:
        raise WeightsMismatch(f"{name} does not match its config: {'; '.join(sorted(wrong)[:10])}")
    state = {key: tensor.to(device, dtype) for key, tensor in stored.items()}
    decoder.load_state_dict(state, strict=True, assign=True)
    return decoder.eval().requires_grad_(False)


def turbo_config(reader: WeightReader) -> TurboConfig:
    name = only_file(reader, TURBO, ".json")
    values = read_json(reader, name)
    try:
        return TurboConfig.from_json(values)
    except (ValueError, TypeError) as error:
        raise WeightsMismatch(f"{name}: {error}") from error


def ema_state(reader: WeightReader, name: str) -> dict[str, Tensor]:
    """Tensors of a training checkpoint's averaged weights, `module.` removed. Nothing in the file is executed."""
    try:
        whole = torch.load(io.BytesIO(reader.read(name, 0, reader.size_bytes(name))), map_location="cpu")
        stored = whole["ema_state_dict"]
        state = {key.removeprefix("module."): tensor for key, tensor in stored.items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise WeightsMismatch(f"{name} holds no ema_state_dict of tensors alone: {error}") from error
    return {key: tensor for key, tensor in state.items() if key.startswith("decoder.")}
