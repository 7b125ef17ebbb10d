"""`happyhorse weights check PATH` and `happyhorse weights shard PATH TARGET tp=N`.

check: exit 0 all well, 1 findings, 2 could not be checked. shard: 0 written, 2 nothing was written, 5 storage failed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jobs.typed import build
from model.codecs.parts import MissingPackages, check_packages
from model.config import ModelConfig
from model.parallel import check_tp_size
from model.parts import find_mismatches, find_twins, parts_of, tp_of
from model.weights import WeightReader, WeightsMismatch, check_cut, read_shards
from pipeline.counting import counted
from pipeline.errors import ConfigError, StoreError, WeightsError
from pipeline.store import StorageSettings
from pipeline.weights.cutting import shard_weights
from pipeline.weights.opening import open_weights, weights_errors


@dataclass(frozen=True, kw_only=True)
class WeightsSettings:
    what: Literal["check", "shard"]
    path: str
    target: str | None
    tp: int | None
    model: ModelConfig
    storage: StorageSettings


def weights(values: Mapping[str, Any]) -> int:
    settings = build(WeightsSettings, {key: value for key, value in values.items() if key != "job"}, at="")
    if settings.what == "shard":
        return shard(settings)
    if settings.target is not None:
        raise ConfigError(f"{settings.target!r} is one word too many, expected weights check PATH")
    try:
        return check(settings)
    except StoreError as error:
        raise WeightsError(str(error)) from error  # it could not be checked


def check(settings: WeightsSettings) -> int:
    try:
        check_packages(settings.model)
    except MissingPackages as error:
        raise ConfigError(str(error)) from error
    reader = open_weights(settings.path, settings.storage, parts=parts_of(settings.model))
    with weights_errors(settings.path):
        tp = settings.tp or tp_of(reader)
        _check_size(settings.model, tp)
        found = find_mismatches(settings.model, reader, tp=tp, deep=True)
        twins = find_twins(settings.model, reader)
        altered = _altered(settings.model, reader)
    said: set[str] = set()  # what several parts have in common is said once
    for part, mismatch in found.items():
        _show(reader, part, mismatch, said)
    others = [finding for finding in (*twins, *altered) if finding not in said]
    for finding in others:
        print(finding)
    count = sum(len(lines) for lines in {str(error): error.findings for error in found.values() if error}.values())
    count += len(others)
    ranks = f", for {tp} ranks" if tp > 1 else ""
    print(f"{settings.path}: {count or 'no'} finding{'s' * (count != 1)}, model {settings.model.name}{ranks}")
    return 1 if count else 0


def _altered(model: ModelConfig, reader: WeightReader) -> tuple[str, ...]:
    """What is wrong with weights that are cut besides the parts themselves."""
    try:
        shards = read_shards(reader)
        if shards is not None:
            check_cut(reader, shards, parts_of(model))
    except WeightsMismatch as error:
        return error.findings
    return ()


def shard(settings: WeightsSettings) -> int:
    if settings.target is None or settings.tp is None:
        raise ConfigError("weights shard needs PATH, TARGET and tp=N")
    shards = shard_weights(
        settings.path, settings.target, model=settings.model, tp=settings.tp, storage=settings.storage
    )
    print(f"{settings.target}: {', '.join(shards.cut)} cut for {shards.tp} ranks; use it with parallel=tp{shards.tp}")
    return 0


def _check_size(model: ModelConfig, tp: int) -> None:
    try:
        for config in model.transformers.values():
            check_tp_size(config, tp)
    except ValueError as error:
        raise ConfigError(f"tp: {error}") from error


def _show(reader: WeightReader, part: str, mismatch: WeightsMismatch | None, said: set[str]) -> None:
    """A line for the part, then one for everything that is wrong with it."""
    files = [name for name in reader.names() if name.startswith(f"{part}/")]
    size_gb = sum(map(reader.size_bytes, files)) / 1e9
    print(f"{part:<14} {counted(len(files), 'file'):>10} {size_gb:>8.2f} GB  {_verdict(mismatch)}")
    for finding in mismatch.findings if mismatch and str(mismatch) not in said else ():
        print(f"  {finding}")
    said |= {str(mismatch)} if mismatch else set()


def _verdict(mismatch: WeightsMismatch | None) -> str:
    """Tensors are counted by what is wrong with them; other findings speak for themselves."""
    if mismatch is None:
        return "ok"
    if mismatch.findings == (str(mismatch),):
        return "not ok"
    kinds = Counter(finding.partition(":")[0] for finding in mismatch.findings)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())
