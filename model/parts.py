"""Which parts of a weights root a model uses, and whether each of them holds what the model needs.

A part is a folder: one for each stage's Transformer, others for what stands around them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations

import torch

from model.codecs.foal import FoalVideoCodec
from model.codecs.oobleck import check_oobleck
from model.codecs.parts import AUDIO, TEXT, TURBO, WAN, check_part, needed_parts
from model.codecs.turbo_weights import check_turbo
from model.codecs.wan import check_wan
from model.config import ModelConfig
from model.text import build_text_encoder
from model.text_t5gemma import check_t5gemma
from model.weights import WeightReader, WeightsMismatch, check_tensors, check_transformer, read_index, read_shards

Check = Callable[[WeightReader], object]  # raises WeightsMismatch
BY_LIBRARY = {WAN: check_wan, AUDIO: check_oobleck, TEXT: check_t5gemma}
SAMPLED, SAMPLE_BYTES = "final_linear_video.weight", 4096


def parts_of(model: ModelConfig) -> tuple[str, ...]:
    """Folders below the weights root, the Transformers' first."""
    return tuple(part_checks(model, tp=1))


def part_checks(model: ModelConfig, *, tp: int, deep: bool = False) -> Mapping[str, Check]:
    """What looks at each part's headers and small files, without memory for its tensors. `tp`: ranks that load it.

    `deep`: the libraries' parts are compared tensor by tensor too, for which diffusers and transformers are imported.
    """
    checks: dict[str, Check] = {
        part: partial(check_transformer, part=part, config=config, tp=tp) for part, config in model.transformers.items()
    }
    if model.codecs.video == "foal":
        checks["codec"] = partial(_check_foal_codec, model)
    if model.codecs.text == "foal":
        checks["text"] = partial(build_text_encoder, model)  # a few kB: built whole
    for part in needed_parts(model.codecs):
        checks[part] = _check_turbo if part == TURBO else partial(_check_part, model, part=part, deep=deep)
    return checks


def check_weights(model: ModelConfig, reader: WeightReader, *, tp: int) -> None:
    """Every part of a model. Raises one WeightsMismatch for all that is wrong."""
    errors = [error for error in find_mismatches(model, reader, tp=tp).values() if error is not None]
    if errors:
        findings = tuple(finding for error in errors for finding in error.findings)
        raise WeightsMismatch("\n".join(map(str, errors)), findings=findings)


def find_mismatches(
    model: ModelConfig, reader: WeightReader, *, tp: int, deep: bool = False
) -> dict[str, WeightsMismatch | None]:
    """What is wrong with each part; None: nothing."""
    return {part: _mismatch(check, reader) for part, check in part_checks(model, tp=tp, deep=deep).items()}


def find_twins(model: ModelConfig, reader: WeightReader) -> list[tuple[str, str]]:
    """Transformers of two stages with the same weights, one of them in the other's place: their shapes are alike."""
    samples: dict[str, bytes] = {}
    for part, config in model.transformers.items():
        try:
            entry = check_transformer(reader, part=part, config=config, tp=tp_of(reader))[0].entries[SAMPLED]
        except WeightsMismatch:
            continue
        samples[part] = reader.read(entry.file, entry.start, min(entry.stop, entry.start + SAMPLE_BYTES))
    return [(one, other) for one, other in combinations(samples, 2) if samples[one] == samples[other]]


def tp_of(reader: WeightReader) -> int:
    """For how many ranks the weights are cut; 1: they are not."""
    shards = read_shards(reader)
    return 1 if shards is None else shards.tp


def _mismatch(check: Check, reader: WeightReader) -> WeightsMismatch | None:
    try:
        check(reader)
    except WeightsMismatch as error:
        return error
    return None


def _check_part(model: ModelConfig, reader: WeightReader, *, part: str, deep: bool) -> None:
    check_part(reader, part=part)
    if deep:
        BY_LIBRARY[part](model, reader)


def _check_turbo(reader: WeightReader) -> None:
    check_part(reader, part=TURBO)
    check_turbo(reader)


def _check_foal_codec(model: ModelConfig, reader: WeightReader) -> None:
    with torch.device("meta"):
        codec = FoalVideoCodec(model.transformer.video_latent_channels)
    check_tensors(read_index(reader, "codec"), codec.state_dict().items(), what="codec")
