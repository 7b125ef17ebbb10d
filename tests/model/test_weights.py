"""Reading checkpoints: strictly, by slices, with one message that names what is wrong."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.parallel import cut_of, shard
from model.transformer import Transformer
from model.weights import LocalWeights, WeightsMismatch, load_transformer_weights, weights_digest
from tests.models import TRANSFORMER


def random_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        layout = Transformer(TRANSFORMER)
    return {
        name: (torch.randn(p.shape, generator=generator) * 0.05).to(p.dtype) for name, p in layout.state_dict().items()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    save_file(random_state(), tmp_path / "base" / "model.safetensors")
    return tmp_path


def load(root: Path, *, tp: int = 1, rank: int = 0, reader: LocalWeights | None = None) -> Transformer:
    with torch.device("meta"):
        model = Transformer(TRANSFORMER, dtype=torch.float32)
    shard(model, tp=tp, rank=rank, group=None)
    load_transformer_weights(
        model,
        reader or LocalWeights(root),
        part="base",
        config=TRANSFORMER,
        tp=tp,
        rank=rank,
        device="cpu",
    )
    return model


def change(root: Path, edit: dict[str, Tensor | None]) -> None:
    path = root / "base" / "model.safetensors"
    state = load_file(path)
    for name, tensor in edit.items():
        if tensor is None:
            del state[name]
        else:
            state[name] = tensor
    save_file(state, path)


def test_one_rank_gets_the_file_and_each_of_four_its_share(root: Path) -> None:
    state = load_file(root / "base" / "model.safetensors")
    for name, parameter in load(root).named_parameters():
        assert torch.equal(parameter, state[name].float())
    for rank in range(4):
        for name, parameter in load(root, tp=4, rank=rank).named_parameters():
            cut = cut_of(name, TRANSFORMER, tp=4, rank=rank)
            if cut is None:
                assert torch.equal(parameter, state[name].float())
            else:
                shares = [
                    torch.nn.functional.pad(
                        state[name].narrow(cut.dim, piece.start, piece.stop - piece.start).transpose(0, cut.dim),
                        (0, 0, 0, piece.pad),
                    ).transpose(0, cut.dim)
                    for piece in cut.pieces
                ]
                assert torch.equal(parameter, torch.cat(shares, cut.dim).float()), name


def test_a_rank_reads_its_rows_alone(root: Path) -> None:
    reader = LocalWeights(root)
    load(root, tp=4, rank=1, reader=reader)
    state = load_file(root / "base" / "model.safetensors")
    rows = sum(t.nbytes for n, t in state.items() if "qkv" in n or "up_gate" in n)
    padded_share = 48 / 168  # of the inner channels: 42 in units of 16
    others = sum(t.nbytes for t in state.values()) - rows
    header = (root / "base" / "model.safetensors").stat().st_size - rows - others
    assert reader.counts.fetched.total() <= others + rows * padded_share + header + 16


def test_shards_named_by_an_index_are_read_like_one_file(root: Path) -> None:
    import json

    path = root / "base" / "model.safetensors"
    state = load_file(path)
    names = sorted(state)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: state[name] for name in part}, root / "base" / file)
    path.unlink()
    weight_map = {name: file for file, part in halves.items() for name in part}
    (root / "base" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(load(root).final_linear_video.weight, state["final_linear_video.weight"])
    (root / "base" / "b.safetensors").unlink()
    with pytest.raises(WeightsMismatch, match=r"names base/b\.safetensors, which is not there"):
        load(root)


QKV = "block.layers.1.attention.linear_qkv.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({QKV: None}, f"1 missing: {QKV}"),
        ({"stray.weight": torch.zeros(2)}, "1 unexpected: stray.weight"),
        ({QKV: torch.zeros(3, 64, dtype=torch.bfloat16)}, r"linear_qkv.weight is \[3, 64\], expected \[196, 64\]"),
        ({"final_norm_video.weight": torch.zeros(64).half()}, "final_norm_video.weight is F16, expected F32"),
    ],
)
def test_a_checkpoint_that_does_not_match_is_refused(root: Path, edit: dict[str, Tensor | None], message: str) -> None:
    change(root, edit)
    with pytest.raises(WeightsMismatch, match=message):
        load(root)


def test_damaged_files_are_named(root: Path, tmp_path: Path) -> None:
    path = root / "base" / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(WeightsMismatch, match=r"base/model\.safetensors has .* the file is truncated"):
        load(root)
    path.write_bytes(whole[:4])
    with pytest.raises(WeightsMismatch, match="truncated or not a safetensors file"):
        load(root)
    path.write_bytes(b"PK\x03\x04" * 1000)
    with pytest.raises(WeightsMismatch, match="truncated or not a safetensors file"):
        load(root)
    path.write_bytes((20).to_bytes(8, "little") + b"x" * 40)
    with pytest.raises(WeightsMismatch, match="is not a safetensors file"):
        load(root)
    path.unlink()
    with pytest.raises(WeightsMismatch, match=r"neither base/model\.safetensors nor"):
        load(root)


@pytest.mark.parametrize(
    "header",
    [
        b'{"__metadata__":null}',
        b'{"__metadata__":"x"}',
        b"[" * 200_000,
        b'{"a":{"dtype":"F32","shape":[0.0],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,0]}}',
    ],
    ids=["no metadata", "metadata of text", "deep", "shape of a fraction", "shape of a truth"],
)
def test_headers_that_are_json_and_no_safetensors_are_refused(root: Path, header: bytes) -> None:
    (root / "base" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsMismatch, match=r"base/model\.safetensors.* is not"):
        load(root)


def test_an_index_that_is_too_deep_is_refused(root: Path) -> None:
    (root / "base" / "model.safetensors.index.json").write_text("[" * 200_000)
    with pytest.raises(WeightsMismatch, match="is not an index of shards: RecursionError"):
        load(root)


def test_the_digest_follows_the_content(root: Path) -> None:
    before = weights_digest(LocalWeights(root), ["base"])
    assert weights_digest(LocalWeights(root), ["base"]) == before
    change(root, {QKV: load_file(root / "base" / "model.safetensors")[QKV] * 2})
    assert weights_digest(LocalWeights(root), ["base"]) != before
