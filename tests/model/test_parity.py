"""The recorded numbers of the released architecture, on one rank and on several real ones."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.parity import ParityError, ParityRow, run_parity

GOLDEN = str(Path(__file__).parents[1] / "golden")


def off(rows: list[ParityRow]) -> list[str]:
    return [f"{row.file} {row.output} {row.error:.1e}" for row in rows if row.verdict == "OFF"]


def test_every_recorded_number_is_met_on_one_rank() -> None:
    rows = run_parity(GOLDEN)
    assert off(rows) == []
    outputs = {row.output for row in rows}
    assert {"out.video", "base_t2v.video", "base_i2v.audio", "unipc32.trajectory"} <= outputs
    assert {"distill_i2v.video", "renoise8.trajectory", "sr_cfg2.video", "sr.alpha_sqrt_table"} <= outputs
    assert {"video.2", "video.9", "video.14"} <= outputs


@pytest.mark.slow
@pytest.mark.parametrize(("tp", "only"), [(2, "*"), (4, "*"), (8, "dit_wide_*")])
def test_the_same_numbers_come_out_of_real_ranks(tp: int, only: str) -> None:
    """Catches a wrong cut, a sum left out, heads read in the wrong order."""
    rows = run_parity(GOLDEN, tp=tp, only=only)
    assert off(rows) == []
    assert sum(row.output == "out.video" for row in rows) == (6 if only == "*" else 2)


def planted(folder: Path, name: str, tensor: str, factor: float) -> Path:
    shutil.copytree(GOLDEN, folder)
    path = folder / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors[tensor] = tensors[tensor] * factor
    save_file(tensors, path, metadata)
    return folder


@pytest.mark.parametrize(
    ("name", "tensor", "only"),
    [
        ("dit_base_v2_fp32", "out.video", "dit_base_v2_fp32"),
        ("dit_base_v2_bf16", "out.video", "dit_base_v2_bf16"),
        ("dit_wide_v2_bf16", "out.audio", "dit_wide_v2_bf16"),
        ("dit_local_v1_weights", "block.layers.2.mlp.down_proj.weight", "dit_local_v1_fp32"),
        ("samplers_fp32", "base_i2v.audio", "samplers_fp32"),
        ("schedulers", "unipc8.trajectory", "schedulers"),
        ("turbo_vae_weights", "decoder.up_blocks.1.upsamplers.0.time_conv.conv.weight", "turbo_vae_fp32"),
    ],
)
def test_an_error_of_one_percent_is_found(tmp_path: Path, name: str, tensor: str, only: str) -> None:
    folder = planted(tmp_path / "copy", name, tensor, 1.01)
    assert off(run_parity(str(folder), only=only))


def test_what_cannot_be_compared_says_why(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="no such folder"):
        run_parity(str(tmp_path / "absent"))
    with pytest.raises(ParityError, match=r"no recorded file matches 'nothing\*'; there are dit_base_v2_bf16"):
        run_parity(GOLDEN, only="nothing*")
    with pytest.raises(ParityError, match="size 8 does not divide 4 key/value heads; sizes that work: 1, 2, 4"):
        run_parity(GOLDEN, tp=8, only="dit_base*")


def test_a_truncated_recording_is_named(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "copy")
    broken = tmp_path / "copy" / "dit_base_v2_fp32.safetensors"
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(ParityError, match=r"dit_base_v2_fp32.*truncated"):
        run_parity(str(tmp_path / "copy"), only="dit_base_v2_fp32")


def test_bfloat16_differs_from_float32() -> None:
    """The two recordings are not interchangeable: bfloat16 really is computed in bfloat16."""
    rows = {(row.file, row.output): row.error for row in run_parity(GOLDEN, only="dit_base*")}
    assert rows["dit_base_v2_bf16", "out.video"] > 100 * rows["dit_base_v2_fp32", "out.video"]
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("tp", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_incomplete_recording_cannot_be_compared(tmp_path: Path, tp: int) -> None:
    shutil.copytree(GOLDEN, tmp_path / "copy")
    (tmp_path / "copy" / "dit_base_v2_weights.safetensors").unlink()
    with pytest.raises(ParityError, match=r"dit_base_v2_weights/model\.safetensors"):
        run_parity(str(tmp_path / "copy"), only="dit_base_v2_fp32", tp=tp)
    recording = tmp_path / "copy" / "dit_wide_v2_fp32.safetensors"
    with safe_open(recording, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(recording)
    save_file({name: tensor for name, tensor in tensors.items() if name != "in.video"}, recording, metadata)
    with pytest.raises(ParityError, match=r"does not hold 'in\.video'"):
        run_parity(str(tmp_path / "copy"), only="dit_wide_v2_fp32", tp=tp)
    save_file(tensors | {"out.video": torch.zeros(3)}, recording, metadata)
    with pytest.raises(ParityError, match=r"out\.video is \[3\], computed is"):
        run_parity(str(tmp_path / "copy"), only="dit_wide_v2_fp32", tp=tp)
