"""The recorded models in bfloat16 and with 8-bit linear maps, against their float32 numbers."""

import fnmatch
from collections.abc import Iterator

import torch

from model.config import TransformerConfig
from model.fp8_layers import prepare_fp8
from model.parity import _read_notes
from model.recordings import FAMILIES, ParityRow, Recording
from model.transformer import Transformer
from model.weights import LocalWeights, load_transformer_weights, read_index, read_tensor

RESULTS = ("out.*", "base_*", "distill_*", "sr_cfg?.video")


class RoundedRecording(Recording):
    """One whose Transformers run in bfloat16, with 8-bit linear maps if `fp8`."""

    fp8 = True

    def transformer(self, config: TransformerConfig, *, weights: str, dtype: torch.dtype) -> Transformer:
        with torch.device("meta"):
            model = Transformer(config, dtype=torch.bfloat16)
        if self.fp8:
            prepare_fp8(model)
        reader = LocalWeights(self.folder)
        load_transformer_weights(model, reader, part=weights, config=config, tp=1, rank=0, device="cpu")
        return model


class BfloatRecording(RoundedRecording):
    fp8 = False


def recorded(folder: str, name: str, *, kind: type[Recording] = RoundedRecording) -> Recording:
    reader = LocalWeights(folder)
    tensors = {key: read_tensor(reader, entry) for key, entry in read_index(reader, name).entries.items()}
    return kind(folder, name, tensors, _read_notes(folder, name), None, 1, 0)


@torch.inference_mode()
def rows(recording: Recording) -> Iterator[ParityRow]:
    family = next(check for glob, check in FAMILIES.items() if fnmatch.fnmatchcase(recording.name, glob))
    for row in family(recording):
        if any(fnmatch.fnmatchcase(row.output, each) for each in RESULTS):
            yield row


def velocity_error(folder: str, name: str, *, kind: type[Recording] = RoundedRecording) -> dict[str, float]:
    """By output, relative L2 against the float32 recording."""
    return {row.output: row.error for row in rows(recorded(folder, f"{name}_fp32", kind=kind))}
