"""A checkpoint of 2 GB on four ranks, each a process of its own: the bytes it reads and the memory it takes."""

import re
from pathlib import Path

import pytest

from pipeline.store import open_store
from tests.large_weights import (
    CONFIG,
    PART,
    Taken,
    load_in_a_process,
    shard_in_a_process,
    stored_tensors,
    tensor_bytes,
    write_holes,
)

pytestmark = pytest.mark.slow
TP = 4
RANKS = (0, TP - 1)  # any rank, and the one with the padding
CUT_ROWS, CUT_COLUMNS = r"linear_qkv|up_gate_proj", r"linear_proj|down_proj"
PADDING = 1.01  # 5460 inner channels are cut 1376, 1376, 1376 and 1332
HEADERS = 200_000
PIECE = 64 << 20  # of a file, or of a tensor that is cut by columns


def sizes() -> tuple[float, int, int, int]:
    """Bytes of one rank's share of what is cut, of what is replicated, of what is cut by columns, of the largest."""
    share, replicated, columns, largest = 0.0, 0, 0, 0
    for name, (shape, dtype) in stored_tensors(CONFIG).items():
        size = tensor_bytes(shape, dtype)
        largest = max(largest, size)
        if re.search(f"{CUT_ROWS}|{CUT_COLUMNS}", name):
            share += size / TP
            columns += size if re.search(CUT_COLUMNS, name) else 0
        else:
            replicated += size
    return share, replicated, columns, largest


SHARE, REPLICATED, COLUMNS, LARGEST = sizes()


def assert_bounded(taken: Taken) -> None:
    rows = SHARE - COLUMNS / TP
    assert taken.requested <= rows * PADDING + REPLICATED + COLUMNS + HEADERS
    assert_small(taken)


def assert_small(taken: Taken) -> None:
    assert taken.grown <= 1.15 * (SHARE + REPLICATED) + LARGEST


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_holes(tmp_path_factory.mktemp("large"))
    files = list((root / PART).glob("*.safetensors"))
    assert len(files) == 5
    assert 1.9e9 < sum(path.stat().st_size for path in files) < 2.1e9
    return root


def test_a_rank_reads_its_share_from_a_folder(root: Path) -> None:
    for rank in RANKS:
        taken = load_in_a_process(str(root), tp=TP, rank=rank)
        assert taken.fetched == taken.requested
        assert_bounded(taken)


def test_weights_are_cut_in_little_memory_and_a_rank_reads_its_own_file_alone(root: Path, tmp_path: Path) -> None:
    taken = shard_in_a_process(str(root), tmp_path / "cut", tp=TP)
    assert taken.grown <= 1.1 * (LARGEST / TP + PIECE), "more than one share and a piece of its tensor"
    for rank in RANKS:
        taken = load_in_a_process(str(tmp_path / "cut"), tp=TP, rank=rank)
        assert taken.requested <= 1.02 * (SHARE + REPLICATED)
        assert_small(taken)


@pytest.mark.s3
def test_a_node_fetches_what_is_cut_by_columns_once(root: Path, swift_s3: str, tmp_path: Path) -> None:
    store = open_store(f"{swift_s3}/weights")
    for path in sorted((root / PART).iterdir()):
        store.put_file(f"{PART}/{path.name}", path)
    taken = [load_in_a_process(store.uri, tp=TP, rank=rank, cache=tmp_path / "cache") for rank in RANKS]
    for each in taken:
        assert_bounded(each)
    rows = SHARE - COLUMNS / TP
    small = 5_000_000  # tensors and rows of less than a quarter of a megabyte are not kept
    assert taken[0].fetched == taken[0].requested
    assert taken[1].fetched <= rows * PADDING + small
