"""Weights that are not what a model needs: `weights check` lists all (exit 1), `render` says so (exit 2)."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.cli import main
from tests.e2e.runs import write_manifest

FOAL = Path(__file__).parents[2] / "model" / "foal" / "weights"
QKV = "block.layers.1.attention.linear_qkv.weight"
GOOD = {"prompt": "A red circle stays still.", "clip_id": "good", "duration": 3}


def change(root: Path, **edit: torch.Tensor | None) -> None:
    path = root / "base" / "model.safetensors"
    state = {name: tensor for name, tensor in (load_file(path) | edit).items() if tensor is not None}
    save_file(state, path)


def truncated(root: Path) -> None:
    path = root / "base" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def truncated_codec(root: Path) -> None:
    path = root / "codec" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def of_another_dtype(root: Path) -> None:
    change(root, **{QKV: load_file(root / "base" / "model.safetensors")[QKV].float()})


def without_a_key(root: Path) -> None:
    change(root, **{QKV: None})


def with_a_key_more(root: Path) -> None:
    change(root, **{"stray.weight": torch.zeros(3)})


def of_another_size(root: Path) -> None:
    change(root, **{QKV: load_file(root / "base" / "model.safetensors")[QKV][:, :-8].contiguous()})


def cut_for_four(root: Path) -> None:
    whole = root.with_name("whole")
    root.rename(whole)
    assert main(["weights", "shard", str(whole), str(root), "tp=4", "job.log_level=ERROR"]) == 0


MISTAKES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncated, "base/model.safetensors has .* bytes, its header describes .*: the file is truncated"),
    "truncated codec": (truncated_codec, "codec/model.safetensors has .* bytes, .*: the file is truncated"),
    "wrong dtype": (of_another_dtype, f"of another dtype: {QKV} is F32, expected BF16"),
    "missing key": (without_a_key, f"missing: {QKV}"),
    "extra key": (with_a_key_more, "unexpected: stray.weight"),
    "another size": (of_another_size, rf"of another shape: {QKV} is \[.*\], expected \["),
    "no text": (lambda root: shutil.rmtree(root / "text"), "neither text/model.safetensors nor"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOAL, tmp_path / "weights"))


def render(folder: Path, *words: str) -> int:
    manifest = write_manifest(folder / "manifest.parquet", [GOOD])
    return main(["render", f"manifest={manifest}", f"output={folder / 'output'}", *words])


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_message_and_nothing_is_started(
    name: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    damage, expected = MISTAKES[name]
    damage(root)
    capsys.readouterr()
    assert main(["weights", "check", str(root)]) == 1
    out, err = capsys.readouterr()
    assert re.search(expected, out), out
    assert f"{root}: 1 finding, model foal" in out
    assert err == ""

    assert render(tmp_path, f"weights={root}") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("happyhorse: ") == 1
    assert re.search(expected, err), err
    assert not (tmp_path / "output").exists()


def test_weights_cut_for_another_size_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_for_four(root)
    assert "base, 128p_sr cut for 4 ranks; use it with parallel=tp4" in capsys.readouterr().out
    assert main(["weights", "check", str(root)]) == 0
    assert f"{root}: no findings, model foal, for 4 ranks" in capsys.readouterr().out
    assert main(["weights", "check", str(root), "tp=2"]) == 1
    assert "the files are cut for 4 ranks, this run has 2" in capsys.readouterr().out
    assert render(tmp_path, f"weights={root}", "parallel=tp2") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "the files are cut for 4 ranks, this run has 2: expected parallel=tp4" in err
    assert not (tmp_path / "output").exists()


def test_a_damaged_shards_json_is_one_finding(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "shards.json").write_text("{}")
    assert main(["weights", "check", str(root)]) in (1, 2)
    assert "".join(capsys.readouterr()).count("shards.json does not say") == 1


def test_copied_files_that_were_changed_are_a_finding(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut_for_four(root)
    path = root / "codec" / "model.safetensors"
    save_file({name: tensor * 2 for name, tensor in load_file(path).items()}, path)
    assert main(["weights", "check", str(root)]) == 1
    out = capsys.readouterr().out
    assert "codec/model.safetensors: not the same as when the weights were cut" in out
    assert f"{root}: 1 finding, model foal, for 4 ranks" in out


def test_all_findings_are_listed_with_counts_by_kind(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "check", str(root), "model=magihuman_base"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (head,) = [line for line in lines if line.startswith("base ")]
    counts = {
        kind: int(number)
        for number, _, kind in (part.strip().partition(" ") for part in head.split("  ")[-1].split(","))
    }
    for kind, count in counts.items():
        assert sum(line.startswith(f"  {kind}: ") for line in lines) == count
    assert counts["missing"] > 200
    assert head.split()[:3] == ["base", "1", "file"]
    assert {line.split()[0] for line in lines if re.match(r"\S+ +\d+ files? ", line)} == {
        "base",
        "turbo_vae",
        "wan_vae",
        "audio_vae",
        "text_encoder",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "/no/such/folder"], "/no/such/folder is not there"),
        (
            ["check", "/no/such/folder", "model=magihuman_distill"],
            "a folder of weights with distill/, turbo_vae/, wan_vae/",
        ),
        (["check", "builtin", "model=magihuman_base"], "builtin holds the foal's weights; give weights=PLACE"),
        (["check", "builtin", "tp=3"], "sizes that work: 1, 2, 4"),
        (["check", "builtin", "elsewhere"], "one word too many"),
        (["check", "s3://no-such-bucket-here/a"], "cannot list s3://no-such-bucket-here/a"),
        (["shard", "builtin"], "needs PATH, TARGET and tp=N"),
        (["mend", "builtin"], "expected one of check, shard"),
    ],
)
def test_what_cannot_be_checked_ends_with_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    assert main(["weights", *words, "storage.retries=0"]) == 2
    assert message in capsys.readouterr().err
