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
from model.weights import (
    WeightReader,
    WeightsMismatch,
    check_tensors,
    check_transformer,
    index_of,
    rank_file,
    read_index,
    read_shards,
)

Check = Callable[[WeightReader], object]  # raises WeightsMismatch
BY_LIBRARY = {WAN: check_wan, AUDIO: check_oobleck, TEXT: check_t5gemma}
STAGES = ("base", "distill", "540p_sr", "1080p_sr")  # folders of all that are released
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


def check_weights(model: ModelConfig, reader: WeightReader, *, tp: int, deep: bool = False) -> None:
    """Every part of a model, and that no stage lies in another's place. Raises one WeightsMismatch for all.

    `deep`: as for `part_checks`.
    """
    found = [error for error in find_mismatches(model, reader, tp=tp, deep=deep).values() if error is not None]
    twins = find_twins(model, reader)
    errors = {str(error): error.findings for error in found} | {twin: (twin,) for twin in twins}  # said once each
    if errors:
        findings = tuple(finding for lines in errors.values() for finding in lines)
        raise WeightsMismatch("\n".join(errors), findings=findings)


def find_mismatches(
    model: ModelConfig, reader: WeightReader, *, tp: int, deep: bool = False
) -> dict[str, WeightsMismatch | None]:
    """What is wrong with each part; None: nothing."""
    return {part: _mismatch(check, reader) for part, check in part_checks(model, tp=tp, deep=deep).items()}


def find_twins(model: ModelConfig, reader: WeightReader) -> list[str]:
    """A line for each two stages with the same weights, one of them the model's: their shapes may be alike.

    The model's stages are compared with all that lie beside them, or, in weights that are cut, with one another.
    """
    own = tuple(model.transformers)
    samples = {part: sample for part in dict.fromkeys((*own, *STAGES)) if (sample := _sample(reader, part)) is not None}
    return [
        f"{one} and {other} hold the same weights: one of them lies in the other's place"
        for one, other in combinations(samples, 2)
        if (one in own or other in own) and samples[one] == samples[other]
    ]


def tp_of(reader: WeightReader) -> int:
    """For how many ranks the weights are cut; 1: they are not."""
    shards = read_shards(reader)
    return 1 if shards is None else shards.tp


def _sample(reader: WeightReader, part: str) -> bytes | None:
    """The first bytes of one tensor. None: it is not there, cannot be read, or is zeros alone, which tell nothing."""
    try:
        shards = read_shards(reader)
        if shards is None:
            index = read_index(reader, part)
        elif (file := rank_file(part, tp=shards.tp, rank=0)) in reader.names():
            index = index_of(reader, [file])
        else:
            return None
        entry = index.entries.get(SAMPLED)
        if entry is None:
            return None
        sample = reader.read(entry.file, entry.start, min(entry.stop, entry.start + SAMPLE_BYTES))
    except WeightsMismatch:
        return None
    return sample if any(sample) else None


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
        codec = FoalVideoCodec.as_stored(model.transformer.video_latent_channels)
    check_tensors(read_index(reader, "codec"), codec.state_dict().items(), what="codec")
