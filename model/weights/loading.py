"""A checkpoint's tensors into a model: a rank reads its own share, or its own file where weights are cut already."""

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor, nn

from model import fp8
from model.config import TransformerConfig
from model.parallel import Cut, cut_of
from model.weights.comparison import check_tensors
from model.weights.index import Index, TensorEntry, read_index
from model.weights.reader import WeightReader
from model.weights.sharding import packed, rank_index, read_shards, source_index
from model.weights.tensors import read_tensor

SMALL_BYTES = 1 << 20
NUM_CONNECTIONS = 8
SCALES = "scales"  # of 8-bit weights
Wanted = tuple[str, TensorEntry, Cut | None]
log = logging.getLogger(__name__)


def check_transformer(reader: WeightReader, *, part: str, config: TransformerConfig, tp: int) -> list[Index]:
    """Whether a Transformer can be loaded on `tp` ranks: headers alone, of every file. Raises WeightsMismatch."""
    shards = read_shards(reader)
    if shards is None:
        return [source_index(reader, part=part, config=config)]
    return [rank_index(reader, shards, part=part, config=config, tp=tp, rank=rank) for rank in range(tp)]


def load_transformer_weights(
    model: nn.Module, reader: WeightReader, *, part: str, config: TransformerConfig, tp: int, rank: int, device: str
) -> None:
    """Fill a model that `shard` prepared on the meta device, from the released layout or from this rank's file."""
    before = _totals(reader)
    shards = read_shards(reader)
    if shards is None:
        index = source_index(reader, part=part, config=config)
    else:
        index = rank_index(reader, shards, part=part, config=config, tp=tp, rank=rank)
    parameters = model.state_dict()
    wanted: list[Wanted] = []
    for name in parameters:
        if name.endswith(SCALES):
            continue  # made of the weights
        cut = cut_of(name, config, tp=tp, rank=rank) if tp > 1 else None
        wanted.append((name, index.entries[name], packed(cut) if cut is not None and shards is not None else cut))
    state = {}
    for name, share in _read_all(reader, wanted):
        wants = parameters[name]
        if wants.dtype == fp8.DTYPE:
            state[name], state[name.removesuffix("weight") + SCALES] = fp8.quantise_into(share.to(device), like=wants)
        else:
            state[name] = share.to(device=device, dtype=wants.dtype)
    model.load_state_dict(state, strict=True, assign=True)
    requested, fetched = (after - earlier for after, earlier in zip(_totals(reader), before, strict=True))
    log.info("%s, rank %d of %d: %.1f MB read, %.1f MB of them fetched", part, rank, tp, requested / 1e6, fetched / 1e6)


def load_module(module: nn.Module, reader: WeightReader, *, part: str) -> None:
    """Fill a small module whole and strictly from `<part>/`."""
    index = read_index(reader, part)
    check_tensors(index, module.state_dict().items(), what=part)
    module.load_state_dict({name: read_tensor(reader, entry) for name, entry in index.entries.items()}, strict=True)


def _read_all(reader: WeightReader, wanted: Iterable[Wanted]) -> Iterator[tuple[str, Tensor]]:
    """Small tensors side by side, since asking takes longer than reading; large ones in turn, since memory counts."""
    sized = [(name, entry, cut, cut is None and entry.stop - entry.start <= SMALL_BYTES) for name, entry, cut in wanted]
    with ThreadPoolExecutor(NUM_CONNECTIONS) as pool:
        small = [(name, pool.submit(read_tensor, reader, entry)) for name, entry, _, is_small in sized if is_small]
        yield from ((name, future.result()) for name, future in small)
    yield from ((name, read_tensor(reader, entry, cut)) for name, entry, cut, is_small in sized if not is_small)


def _totals(reader: WeightReader) -> tuple[int, int]:
    return reader.counts.requested.total(), reader.counts.fetched.total()
