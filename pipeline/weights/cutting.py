"""`weights shard`: a model's weights cut once for a number of ranks, each rank's share in a file of its own.

`shards.json` is written last: until then nobody can take the target for weights. Memory holds one tensor at a time.
"""

import logging
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from model.config import ModelConfig, TransformerConfig
from model.parallel import check_tp_size
from model.parts import check_weights, parts_of
from model.weights import (
    SHARDS,
    Shards,
    WeightReader,
    deciding_files,
    file_digest,
    pieces,
    rank_file,
    read_shards,
    weights_digest,
    write_rank_file,
)
from pipeline.errors import ConfigError, WeightsError
from pipeline.store import StorageSettings, Store, open_store
from pipeline.weights.opening import BUILTIN, open_weights, weights_errors

Write = Callable[[BinaryIO], object]
log = logging.getLogger(__name__)


def shard_weights(source: str, target: str, *, model: ModelConfig, tp: int, storage: StorageSettings) -> Shards:
    """Cuts the Transformers of `model` and copies its other parts. ConfigError or WeightsError: nothing was written."""
    try:
        for config in model.transformers.values():
            check_tp_size(config, tp)
    except ValueError as error:
        raise ConfigError(f"tp: {error}") from error
    if tp < 2:
        raise ConfigError("tp is 1, expected 2 or more: weights that are not cut are weights for one rank")
    reader, store = open_weights(source, storage, parts=parts_of(model)), open_store(target, storage)
    if source != BUILTIN:
        _check_outside(source, store, storage)
    with weights_errors(source):
        if read_shards(reader) is not None:
            raise WeightsError(f"weights {source}: they are cut already; cut those they were made from")
        check_weights(model, reader, tp=1)
        shards = _shards_of(model, reader, tp=tp)
        writes = dict(_writes(model, reader, shards))
        _check_target(store, set(writes))
        for name, write in writes.items():
            log.info("writing %s", store.where(name))
            store.write(name, write)
    store.put(SHARDS, shards.to_json())
    return shards


def _shards_of(model: ModelConfig, reader: WeightReader, *, tp: int) -> Shards:
    parts, cut = parts_of(model), tuple(model.transformers)
    copied = deciding_files(reader, [part for part in parts if part not in cut])
    return Shards(
        tp=tp,
        digest=weights_digest(reader, parts),
        parts=parts,
        cut=cut,
        copied={name: file_digest(reader, name) for name in copied},
    )


def _writes(model: ModelConfig, reader: WeightReader, shards: Shards) -> Iterator[tuple[str, Write]]:
    """Every file of the target but the last, and what writes it."""
    for part, config in model.transformers.items():
        for rank in range(shards.tp):
            yield rank_file(part, tp=shards.tp, rank=rank), _cut(reader, shards, part=part, config=config, rank=rank)
    folders = tuple(f"{part}/" for part in shards.parts if part not in shards.cut)
    for name in reader.names():
        if name.startswith(folders):
            yield name, _copy(reader, name)


def _cut(reader: WeightReader, shards: Shards, *, part: str, config: TransformerConfig, rank: int) -> Write:
    return lambda file: write_rank_file(
        file, reader, part=part, config=config, tp=shards.tp, rank=rank, source=shards.digest
    )


def _copy(reader: WeightReader, name: str) -> Write:
    return lambda file: file.writelines(pieces(reader, name))


def _check_outside(source: str, target: Store, storage: StorageSettings) -> None:
    """A target below its source would be taken for a part of it."""
    whole = open_store(source, storage).uri
    places = (
        (whole, target.uri) if "://" in whole or "://" in target.uri else map(os.path.realpath, (whole, target.uri))
    )
    outer, inner = places
    if inner.startswith(outer.rstrip("/") + "/"):
        raise ConfigError(f"target: {target.uri} lies inside {source}, expected a folder outside of it")


def _check_target(store: Store, planned: set[str]) -> None:
    """What an interrupted run left may be there, nothing else."""
    strays = sorted(each.key for each in store.list() if each.key not in planned)
    if strays:
        raise ConfigError(
            f"target: {store.uri} holds {len(strays)} other files, {strays[0]} among them; expected a new folder"
        )
