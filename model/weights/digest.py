"""What tells one set of weights from another: part of every clip's settings hash, so it must not change on its own."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from model.weights.index import entry_of, read_header
from model.weights.reader import WeightReader, WeightsMismatch, pieces
from model.weights.sharding import SHARDS, Shards, read_shards

FULL_DIGEST_BYTES = 256 * 1024 * 1024
SAMPLE_BYTES = 4096
NUM_CONNECTIONS = 8
DECIDING = (".safetensors", ".ckpt", ".json", ".model", ".txt")  # what a codec or a tokenizer is made of


def weights_digest(reader: WeightReader, parts: Iterable[str]) -> str:
    """SHA-256 over the files of `parts`: of whole files up to 256 MiB, of headers and samples of larger ones.

    Weights that were cut have the digest of those they were cut from. WeightsMismatch where they were cut for a model
    of other parts, or a copied file was changed since.
    """
    shards = read_shards(reader)
    if shards is None:
        digest = hashlib.sha256()
        for name in deciding_files(reader, parts):
            for piece in _deciding_bytes(reader, name):
                digest.update(piece)
        return digest.hexdigest()
    check_cut(reader, shards, parts)
    return shards.digest


def check_cut(reader: WeightReader, shards: Shards, parts: Iterable[str]) -> None:
    """WeightsMismatch where weights were cut for a model of other parts, or a copied file was changed since."""
    parts = tuple(parts)
    if set(parts) != set(shards.parts):
        raise WeightsMismatch(
            f"{SHARDS}: the weights were cut for a model of {', '.join(shards.parts)}, this one has {', '.join(parts)}"
        )
    others = [part for part in shards.parts if part not in shards.cut]
    now = {name: file_digest(reader, name) for name in deciding_files(reader, others)}
    changed = sorted(name for name in now.keys() | shards.copied.keys() if now.get(name) != shards.copied.get(name))
    if changed:
        raise WeightsMismatch(f"{', '.join(changed)}: not the same as when the weights were cut; cut them again")


def deciding_files(reader: WeightReader, parts: Iterable[str]) -> list[str]:
    """Files of the parts that decide a clip; an index says only how they are laid out."""
    folders = tuple(f"{part}/" for part in parts)
    names = [name for name in reader.names() if name.startswith(folders) and name.endswith(DECIDING)]
    return [name for name in names if not name.endswith(".index.json")]


def file_digest(reader: WeightReader, name: str) -> str:
    digest = hashlib.sha256()
    for piece in _deciding_bytes(reader, name):
        digest.update(piece)
    return digest.hexdigest()


def _deciding_bytes(reader: WeightReader, name: str) -> Iterator[bytes]:
    size = reader.size_bytes(name)
    yield f"{name} {size}\n".encode()
    if size <= FULL_DIGEST_BYTES or not name.endswith(".safetensors"):
        yield from pieces(reader, name)
        return
    header, data_start = read_header(reader, name)
    yield json.dumps(header, sort_keys=True).encode()
    entries = [entry_of(name, key, value, data_start) for key, value in sorted(header.items()) if key != "__metadata__"]
    with ThreadPoolExecutor(NUM_CONNECTIONS) as pool:
        yield from pool.map(
            lambda entry: reader.read(name, entry.start, min(entry.stop, entry.start + SAMPLE_BYTES)), entries
        )
