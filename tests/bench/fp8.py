"""How far 8-bit linear maps take the recorded models from their float32 numbers: velocities, and latents at the end."""

import fnmatch
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from model.config import TransformerConfig
from model.fp8_layers import prepare_fp8
from model.parity import _read_notes
from model.recordings import FAMILIES, ParityRow, Recording
from model.transformer import Transformer
from model.weights import LocalWeights, load_transformer_weights, read_index, read_tensor
from tests.bench.figures import Figure
from tests.bench.foal import PROMPTS, denoised, mean_far
from tests.configured import load_model

GOLDEN = str(Path(__file__).parents[1] / "golden")
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


def figures() -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for word, kind in (("bfloat16", BfloatRecording), ("fp8", RoundedRecording)):
        for name in ("dit_base_v2", "dit_local_v1", "dit_wide_v2", "samplers"):
            for output, error in velocity_error(GOLDEN, name, kind=kind).items():
                found[f"{word}, {name} {output}, relative L2"] = Figure(value=error, unit="")
    return found | _of_the_foal()


def _of_the_foal() -> dict[str, Figure]:
    """Trained weights: latents at the end of its first stage."""
    found: dict[str, Figure] = {}
    for name in ("foal", "foal_distill"):
        model = load_model(name)
        expected = [denoised(model, prompt) for prompt in PROMPTS]
        for word, fp8 in (("bfloat16", False), ("fp8", True)):
            rounded = replace(model, compute_dtype="bfloat16", fp8=fp8)
            got = [denoised(rounded, prompt) for prompt in PROMPTS]
            for kind in ("video", "audio"):
                error = mean_far(got, expected, kind)
                found[f"{word}, {name} {kind} latents, relative L2"] = Figure(value=error, unit="")
    return found
