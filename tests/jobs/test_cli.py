"""The command line as a person meets it: two streams and an exit code. In this process where that loses nothing."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from jobs import parity
from jobs.cli import COMMANDS, exit_code, main
from model.recordings import ParityRow, Verdict
from pipeline import errors
from pipeline.errors import Finding, ManifestError, RenderError

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
HAPPYHORSE = Path(sys.executable).parent / "happyhorse"


def happyhorse(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HAPPYHORSE, *words], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


@pytest.mark.parametrize("words", [[], ["--help"], ["help"], ["-h"]])
def test_help_lists_the_commands(words: list[str]) -> None:
    done = happyhorse(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_of_a_command_lists_its_keys(name: str) -> None:
    done = happyhorse(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: happyhorse {name} " in done.stdout
    assert "=..." in done.stdout or COMMANDS[name].positional


def test_help_explains_with_the_words_of_conf() -> None:
    shown = happyhorse("render", "--help").stdout
    assert "media.crf=18                         H.264 quality" in shown
    assert "parallel=tp2 (or auto, tp1, tp4, tp8)" in shown


def test_version() -> None:
    assert happyhorse("--version").stdout.startswith("happyhorse ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rendr"], "unknown command rendr; did you mean render?"),
        (["render"], "render needs manifest=... and output=..."),
        (["render", "manifest=x"], "render needs output=..."),
        (["render", "manifest=x", "output=y", "media.crff=1"], "the nearest known one is media.crf"),
        (["render", "manifest=x", "output=y", "parallel=tp3"], "parallel=tp3 is none of its choices"),
        (["render", "manifest=x", "output=y", "media.crf=best"], 'media.crf: got "best", expected a whole number'),
        (["render", "manifest=x", "output=y", "job.log_level=LOUD"], "expected one of DEBUG, INFO, WARNING, ERROR"),
        (["verify", "somewhere"], "'somewhere' is not key=value"),
        (["parity", "path=tests/golden", "tp=two"], 'tp: got "two", expected a whole number'),
        (["parity", "path=no/such/folder"], "no/such/folder: no such folder"),
        (["parity", "path=tests/golden", "only=nothing*"], "no recorded file matches 'nothing*'"),
        (["parity", "path=tests/golden", "tp=3"], "sizes that work: 1, 2, 4"),
    ],
)
def test_a_mistake_is_one_clear_message(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("happyhorse: ")
    assert said in err


def test_a_mistake_in_a_process_of_its_own() -> None:
    done = happyhorse("render", "manifest=x", "output=y", "media.crff=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("happyhorse: unknown key media.crff; the nearest known one is media.crf\n")
    assert "Traceback" not in done.stderr


def test_every_error_has_an_exit_code() -> None:
    codes = {"ConfigError": 2, "ManifestError": 2, "WeightsError": 2, "LeaseHeld": 4, "OutputPaused": 3}
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, RenderError):
            error = kind("x", [Finding(0, "a", "b", "c")]) if kind is ManifestError else kind("x")
            assert exit_code(error) == codes.get(name, 5), name


def test_an_output_without_records_cannot_be_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", f"output={tmp_path}"]) == 2
    assert f"{tmp_path} holds no records" in capsys.readouterr().err


def test_parity_agrees_with_what_was_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parity", f"path={GOLDEN}", "only=dit_base_v2_fp32"]) == 0
    out = capsys.readouterr().out
    assert "out.video" in out
    assert "5 ok, 0 OFF" in out


@pytest.mark.parametrize(("verdict", "code"), [("ok", 0), ("OFF", 1)])
def test_parity_answers_1_for_whatever_is_not_ok(verdict: Verdict, code: int) -> None:
    good = ParityRow(file="a", output="b", error=1e-6, limit=1e-4, verdict="ok")
    assert parity.exit_code([good, replace(good, verdict=verdict, error=float("nan"))]) == code


def test_parity_finds_an_error_of_one_percent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "dit_base_v2_fp32.safetensors"
    shutil.copy(GOLDEN / "dit_base_v2_weights.safetensors", tmp_path)
    with safe_open(GOLDEN / name, framework="pt") as recorded:
        tensors = {key: recorded.get_tensor(key) for key in recorded.keys()}  # noqa: SIM118
        metadata = recorded.metadata()
    tensors["out.audio"] = tensors["out.audio"] * 1.01
    save_file(tensors, tmp_path / name, metadata)
    assert main(["parity", f"path={tmp_path}"]) == 1
    assert "4 ok, 1 OFF" in capsys.readouterr().out


def test_a_reader_that_has_read_enough_causes_no_traceback() -> None:
    happyhorse = Path(sys.executable).parent / "happyhorse"
    process = subprocess.Popen([happyhorse, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert said == b""
