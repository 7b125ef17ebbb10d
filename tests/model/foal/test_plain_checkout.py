"""`python -m model.foal.train` needs torch, numpy and safetensors alone, and says in one line what it cannot do."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from model.foal.train import RECIPES

ROOT = Path(__file__).parents[3]
IMPORTED_AS = {"ffmpeg-python": "ffmpeg", "hydra-core": "hydra", "pillow": "PIL"}
GUARD = """
import runpy, sys

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden}:
            raise ImportError(f"{{name}} is not installed here")

sys.meta_path.insert(0, Guard())
sys.argv[0] = "train.py"
runpy.run_module("model.foal.train", run_name="__main__", alter_sys=True)
"""


def forbidden() -> set[str]:
    """All that the package wants but for the three, and the parts of it that train nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["released"]]
    names = {re.split(r"[\[<>=]", each)[0] for each in wanted} - {"torch", "numpy", "safetensors"}
    return {IMPORTED_AS.get(name, name).replace("-", "_") for name in names} | {"omegaconf", "conf", "jobs", "pipeline"}


@pytest.mark.slow
def test_every_part_trains_where_nothing_else_is_installed(codec_weights: Path, tmp_path: Path) -> None:
    """The codec's own training imports nothing that the others do not."""
    out = tmp_path / "foal"
    shutil.copytree(codec_weights, out / "weights")
    assert {"ray", "hydra", "pyarrow", "av", "PIL"} <= forbidden()
    script = GUARD.format(forbidden=forbidden())
    words = ["--out", str(out), "--parts", *[part for part in RECIPES if part != "codec"], "--steps", "1"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words, "--device", "cpu"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {path.parent.name for path in out.glob("weights/*/model.safetensors")} == {
        "codec",
        "text",
        "base",
        "distill",
        "128p_sr",
    }
    assert len(list(out.glob("*/curves.svg"))) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--parts", "base"], "base needs codec, not trained to the end in"),
        (["--parts", "codec", "--steps", "0"], "steps is 0, expected at least 1"),
        (["--parts", "sound"], "invalid choice: 'sound'"),
    ],
)
@pytest.mark.filterwarnings("ignore:'model.foal.train' found in sys.modules")
def test_what_cannot_be_trained_is_said_in_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--out", str(tmp_path / "foal"), *words])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("model.foal.train", run_name="__main__", alter_sys=True)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "foal").exists()
