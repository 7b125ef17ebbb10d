"""`happyhorse train foal`: what `model/foal/train.py` trains, mistakes found before, a stop that loses little."""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.cli import main
from jobs.compose import defaults
from model.foal import train as training
from model.foal.flow import BASE
from model.foal.train import RECIPES
from tests.models import small_model
from tests.weights import write_codecs

ROOT = Path(__file__).parents[2]
HAPPYHORSE = Path(sys.executable).parent / "happyhorse"
STEPS = 4
BASE_WEIGHTS = Path("weights", "base", "model.safetensors")


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def a_root(folder: Path) -> Path:
    """Where `base` can be trained: on the pictures of a codec that knows nothing."""
    model = dataclasses.replace(small_model(), transformer=BASE)
    write_codecs(folder / "weights", model, torch.Generator().manual_seed(0))
    return folder


def command(out: Path, *words: str) -> list[str]:
    return ["train", "foal", f"out={out}", "parts=[base]", "device=cpu", *words]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained without the command line and in one go."""
    out = a_root(tmp_path_factory.mktemp("straight"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    training.train("base", dataclasses.replace(RECIPES["base"], steps=STEPS), out=out, save_every=100)
    torch.set_num_threads(before)
    return out


@pytest.mark.slow
def test_a_stopped_training_goes_on_and_ends_as_if_it_had_never_stopped(
    straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = a_root(tmp_path)
    words = command(out, f"steps={STEPS}", "save_every=1")
    process = subprocess.Popen([HAPPYHORSE, *words], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    deadline_s = time.monotonic() + 120
    while not (out / "base" / "state.pt").exists() and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert "happyhorse: stopped; the same command goes on from here" in err
    assert "Traceback" not in err
    assert torch.load(out / "base" / "state.pt", weights_only=True)["step"] < STEPS

    assert main(words) == 0
    assert f"base: trained {STEPS} steps, see {out}/base/curves.svg" in capsys.readouterr().out
    assert (out / BASE_WEIGHTS).read_bytes() == (straight / BASE_WEIGHTS).read_bytes()
    steps = [json.loads(line)["step"] for line in (out / "base" / "log.jsonl").read_text().splitlines()]
    assert steps.count(1) == 1, "it did not begin anew"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "train needs NAME"),
        (["colt"], 'name: got "colt", expected one of foal'),
        (["foal", "parts=[sound]"], "unknown part 'sound', expected some of codec, base, distilled, super_resolution"),
        (["foal", "parts=codec"], 'parts: got "codec", expected a list'),
        (["foal", "parts=[]"], "parts is empty"),
        (["foal", "parts=[base,codec]"], "base needs codec, not trained to the end in"),
        (["foal", "parts=[codec,distilled]"], "distilled needs base, not trained to the end in"),
        (["foal", "steps=0"], "steps is 0, expected at least 1"),
        (["foal", "steps=many"], 'steps: got "many", expected a whole number or null'),
        (["foal", "seed=-1"], "seed is -1, expected 0 to"),
        (["foal", "threads=0"], "threads is 0, expected at least 1"),
        (["foal", "save_every=0"], "save_every is 0, expected at least 1"),
        (["foal", "device=abacus"], 'device: got "abacus", expected one of auto, cpu, cuda'),
        (["foal", "out=s3://bucket/foal"], "out: got s3://bucket/foal, expected a folder on this machine"),
        (["foal", "batch_size=3"], "unknown key batch_size"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_started(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "foal"
    given = words if not words or any(word.startswith("out=") for word in words) else [*words, f"out={out}"]
    assert main(["train", *given]) == 2
    shown, err = capsys.readouterr()
    assert shown == ""
    assert err.startswith("happyhorse: ")
    assert said in err
    assert not out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "foal", f"out={tmp_path / 'foal'}", "device=cuda"]) == 2
    assert "device=cuda: there is no GPU" in capsys.readouterr().err


def test_a_file_where_the_folder_should_be_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "foal").write_text("")
    assert main(["train", "foal", f"out={tmp_path / 'foal'}"]) == 2
    assert "expected a folder on this machine" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["steps=7", f"steps={STEPS} seed=9"])
def test_what_was_trained_with_another_recipe_is_not_gone_on_with(
    change: str, straight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (straight / BASE_WEIGHTS).stat().st_mtime_ns
    assert main(command(straight, *change.split())) == 2
    err = capsys.readouterr().err
    key, value = change.split()[-1].split("=")
    assert f"base/state.pt was trained with {key} {getattr(RECIPES['base'], key) if key == 'seed' else STEPS}" in err
    assert f"not {value}: train elsewhere, or remove it" in err
    assert (straight / BASE_WEIGHTS).stat().st_mtime_ns == before


def test_a_disk_that_fails_is_told_from_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = a_root(tmp_path)
    (out / "base").write_text("in the way")  # not the folder that the training wants to make
    assert main(command(out, "steps=1", "threads=3")) == 5
    assert "base: " in capsys.readouterr().err
    assert torch.get_num_threads() == 3


def test_both_ways_to_train_start_from_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs: dict[str, Any] = {}
    parse = argparse.ArgumentParser.parse_args

    def note(parser: argparse.ArgumentParser) -> None:
        theirs.update(vars(parse(parser, [])))
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", note)
    with pytest.raises(SystemExit):
        training.main()
    ours, _ = defaults("train")
    assert theirs.keys() == ours.keys() - {"name", "job"}
    assert all(str(theirs[key]) == str(ours[key]) for key in theirs.keys() - {"device"})
