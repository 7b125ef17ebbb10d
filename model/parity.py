"""Runs recorded files of the golden format on real ranks and compares: this machine's numbers against recorded ones.

A folder holds `<name>_fp32` and `<name>_bf16` files beside their weights. Torch and safetensors suffice.
"""

import datetime
import fnmatch
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # exported without saying so
from torch.multiprocessing.spawn import ProcessException, start_processes

from model.parallel import check_tp_size
from model.recordings import FAMILIES, ParityError, ParityRow, Recording, transformer_config
from model.weights import LocalWeights, WeightsMismatch, read_index, read_tensor

__all__ = ["ParityError", "ParityRow", "run_parity"]
TIMEOUT_S = 600


def _recorded_files(path: str, only: str) -> list[str]:
    if not Path(path).is_dir():
        raise ParityError(f"{path}: no such folder of recorded files")
    names = sorted(file.stem for file in Path(path).glob("*.safetensors"))
    chosen = [n for n in names if not n.endswith("_weights") and fnmatch.fnmatchcase(n, only)]
    if not chosen:
        raise ParityError(f"{path}: no recorded file matches {only!r}; there are {', '.join(names) or 'none'}")
    return chosen


def _read_notes(path: str, name: str) -> dict[str, Any]:
    """The configuration recorded in a file's metadata."""
    try:
        notes: dict[str, Any] = json.loads(read_index(LocalWeights(path), name).metadata["json"])
    except (WeightsMismatch, KeyError, ValueError) as error:
        raise ParityError(f"{name}: not a file of recorded numbers: {error}") from error
    return notes


def _check_sizes(path: str, names: list[str], tp: int) -> None:
    """Raises ParityError where a recorded Transformer cannot be cut `tp` ways."""
    for name in names:
        notes = _read_notes(path, name)
        if name.startswith(("dit_", "samplers_")):
            shape: dict[str, Any] = notes["config"] if name.startswith("dit_") else notes["base_config"]
            config = transformer_config(shape | {"local_attn_layers": ()}, coords_style="v2", radius=-1)
            try:
                check_tp_size(config, tp)
            except ValueError as error:
                raise ParityError(f"{name}: {error}") from error


@torch.inference_mode()
def _compare(path: str, names: list[str], *, tp: int, rank: int) -> list[ParityRow]:
    torch.set_num_threads(1)
    rows: list[ParityRow] = []
    group = dist.group.WORLD if tp > 1 else None
    for name in names:
        family = next((check for glob, check in FAMILIES.items() if fnmatch.fnmatchcase(name, glob)), None)
        if family is None:
            raise ParityError(f"{name}: no family of recorded files has this name; there are {', '.join(FAMILIES)}")
        reader = LocalWeights(path)
        tensors = {key: read_tensor(reader, entry) for key, entry in read_index(reader, name).entries.items()}
        try:
            rows += family(Recording(path, name, tensors, _read_notes(path, name), group, tp, rank))
        except KeyError as error:
            raise ParityError(f"{name}: it does not hold {error}, which this comparison needs") from error
        except (WeightsMismatch, ValueError, RuntimeError) as error:
            raise ParityError(f"{name}: {error}") from error
    return rows


def _rank_main(rank: int, tp: int, port: int, path: str, names: list[str], answers: Any) -> None:
    store = TCPStore("127.0.0.1", port, tp, is_master=False)
    timeout = datetime.timedelta(seconds=TIMEOUT_S)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=tp, timeout=timeout)
    rows = _compare(path, names, tp=tp, rank=rank)
    if rank == 0:
        answers.put(rows)
    dist.destroy_process_group()


def run_parity(path: str, *, tp: int = 1, only: str = "*") -> list[ParityRow]:
    """Compare every recorded file of folder `path` that matches the glob `only`, on `tp` real processes.

    Raises ParityError where nothing can be compared: no such folder, no match, an impossible size.
    """
    names = _recorded_files(path, only)
    _check_sizes(path, names, tp)
    if tp == 1:
        return _compare(path, names, tp=1, rank=0)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    answers = multiprocessing.get_context("spawn").SimpleQueue()
    context = start_processes(
        _rank_main, (tp, store.port, path, names, answers), nprocs=tp, join=False, start_method="spawn"
    )
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while not context.join(timeout=1):
            if time.monotonic() > deadline:
                raise ParityError(f"{tp} ranks did not finish within {TIMEOUT_S} s")
    except ProcessException as error:
        reason = str(error).strip().splitlines()[-1]
        raise ParityError(f"a rank failed: {reason}") from error
    rows: list[ParityRow] = answers.get()
    return rows
