"""A checkpoint of about 2 GB that takes no time to make, and a rank that loads its share of it in its own process.

`python -m tests.large_weights load ROOT TP RANK CACHE` prints what it took as JSON, `... shard ROOT TARGET TP` what it
took to cut it. The files are holes: zeros to a reader.
"""

import json
import os
import struct
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from model.config import ModelConfig, TransformerConfig
from model.parallel import shard
from model.transformer import Transformer
from model.weights import load_transformer_weights
from pipeline.store import StorageSettings
from pipeline.weights.cutting import shard_weights
from pipeline.weights.opening import open_weights
from tests.models import small_model
from tests.weights import write_codecs

ROOT = Path(__file__).parents[1]
# glibc gives freed memory back at once above this size only; left alone it learns to keep up to 32 MiB a block, so that
# the same work grows by 139 or by 171 MiB, as threads happen to interleave. With it: what is held, 90 MiB each time.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
CONFIG = TransformerConfig(
    num_layers=14,
    hidden_size=2048,
    head_dim=128,
    num_heads_q=16,
    num_heads_kv=4,
    video_in_channels=192,
    audio_in_channels=64,
    text_in_channels=3072,
    mm_layers=(0, 1, 12, 13),
    gelu7_layers=(0, 1),
    local_attn_layers=(),
    coords_style="v2",
)
PART = "base"
DTYPE_BYTES = {"F32": 4, "BF16": 2}


@dataclass(frozen=True, kw_only=True)
class Taken:
    """By one rank, in bytes."""

    requested: int
    fetched: int
    grown: int  # the most that anonymous memory was above its size before loading


def stored_tensors(config: TransformerConfig) -> dict[str, tuple[list[int], str]]:
    """Every tensor of a checkpoint, with shape and dtype, as the table of spec/model.md has them."""
    hidden, head, heads, kv_heads = config.hidden_size, config.head_dim, config.num_heads_q, config.num_heads_kv
    table: dict[str, tuple[list[int], str]] = {"adapter.rope.bands": ([head // 8], "F32")}
    inputs = {"video": config.video_in_channels, "audio": config.audio_in_channels, "text": config.text_in_channels}
    for modality, channels in inputs.items():
        table[f"adapter.{modality}_embedder.weight"] = ([hidden, channels], "F32")
        table[f"adapter.{modality}_embedder.bias"] = ([hidden], "F32")
    for layer in range(config.num_layers):
        name = f"block.layers.{layer}"
        experts = 3 if layer in config.mm_layers else 1
        plain = layer in config.gelu7_layers
        inner = 4 * hidden if plain else int(hidden * 4 * 2 / 3) // 4 * 4
        rows = heads * head + kv_heads * head + kv_heads * head + heads
        table[f"{name}.attention.pre_norm.weight"] = ([experts * hidden], "F32")
        table[f"{name}.attention.linear_qkv.weight"] = ([experts * rows, hidden], "BF16")
        table[f"{name}.attention.linear_proj.weight"] = ([experts * hidden, heads * head], "BF16")
        table[f"{name}.attention.q_norm.weight"] = ([experts * head], "F32")
        table[f"{name}.attention.k_norm.weight"] = ([experts * head], "F32")
        table[f"{name}.mlp.pre_norm.weight"] = ([experts * hidden], "F32")
        table[f"{name}.mlp.up_gate_proj.weight"] = ([experts * (inner if plain else 2 * inner), hidden], "BF16")
        table[f"{name}.mlp.down_proj.weight"] = ([experts * hidden, inner], "BF16")
    for modality in ("video", "audio"):
        table[f"final_norm_{modality}.weight"] = ([hidden], "F32")
        table[f"final_linear_{modality}.weight"] = ([inputs[modality], hidden], "F32")
    return table


def tensor_bytes(shape: list[int], dtype: str) -> int:
    size = DTYPE_BYTES[dtype]
    for length in shape:
        size *= length
    return size


def write_holes(root: Path, *, num_files: int = 5) -> Path:
    """`base/` with an index and `num_files` shards of about the same size."""
    table = stored_tensors(CONFIG)
    room = sum(tensor_bytes(*each) for each in table.values()) // num_files + 1
    shards: list[dict[str, tuple[list[int], str]]] = [{}]
    held = 0
    for name, (shape, dtype) in table.items():
        if held >= room * len(shards):
            shards.append({})
        shards[-1][name] = (shape, dtype)
        held += tensor_bytes(shape, dtype)
    (root / PART).mkdir(parents=True)
    weight_map: dict[str, str] = {}
    for n, tensors in enumerate(shards, 1):
        file = f"model-{n:05}-of-{len(shards):05}.safetensors"
        _write_file(root / PART / file, tensors)
        weight_map |= dict.fromkeys(tensors, file)
    (root / PART / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return write_codecs(root, large_model(), torch.Generator().manual_seed(0))


def large_model() -> ModelConfig:
    return replace(small_model("large"), transformer=CONFIG, compute_dtype="bfloat16")


def _write_file(path: Path, tensors: dict[str, tuple[list[int], str]]) -> None:
    header, at = {}, 0
    for name, (shape, dtype) in tensors.items():
        end = at + tensor_bytes(shape, dtype)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


def load_in_a_process(root: str, *, tp: int, rank: int, cache: Path | None = None) -> Taken:
    return _in_a_process("load", root, str(tp), str(rank), str(cache or ""))


def shard_in_a_process(root: str, target: Path, *, tp: int) -> Taken:
    return _in_a_process("shard", root, str(target), str(tp))


def _in_a_process(*words: str) -> Taken:
    done = subprocess.run(
        [sys.executable, "-m", "tests.large_weights", *words],
        cwd=ROOT,
        env=os.environ | MALLOC,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Taken(**json.loads(done.stdout))


class _Watch:
    """The most anonymous memory that this process had while it ran, looked at every millisecond."""

    def __enter__(self) -> "_Watch":
        self.before = self.most = _anonymous_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._done.is_set():
            self.most = max(self.most, _anonymous_bytes())
            time.sleep(0.001)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.most = max(self.most, _anonymous_bytes())


def _anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def _load(root: str, tp: str, rank: str, cache: str) -> Taken:
    with torch.device("meta"):
        model = Transformer(CONFIG)
    shard(model, tp=int(tp), rank=int(rank), group=None)
    reader = open_weights(root, StorageSettings(weights_cache=cache or None))
    with _Watch() as watch:
        load_transformer_weights(model, reader, part=PART, config=CONFIG, tp=int(tp), rank=int(rank), device="cpu")
    requested, fetched = reader.counts.requested.total(), reader.counts.fetched.total()
    return Taken(requested=requested, fetched=fetched, grown=watch.most - watch.before)


def _shard(root: str, target: str, tp: str) -> Taken:
    with _Watch() as watch:
        shard_weights(root, target, model=large_model(), tp=int(tp), storage=StorageSettings())
    return Taken(requested=0, fetched=0, grown=watch.most - watch.before)


if __name__ == "__main__":
    torch.set_num_threads(1)
    work, *words = sys.argv[1:]
    taken = _load(*words) if work == "load" else _shard(*words)
    print(json.dumps(asdict(taken)))
