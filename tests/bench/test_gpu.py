"""`make bench-gpu` without a GPU: what it renders is what conf/ says, and every line of it runs, at a small size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.gpu.__main__ import card_of, main
from tests.bench.gpu.targets import DURATION_S, RATIO, targets
from tests.configured import load_model

ROOT = Path(__file__).parents[2]
OTHERS = "ray hydra omegaconf pyarrow numpy yaml PIL av accelerate diffusers transformers rich obstore scipy".split()
ALONE = f"""
import sys
for name in {OTHERS}: sys.modules[name] = None
from tests.bench.gpu.__main__ import card_of, main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("resolution", "name"), [("256P", "magihuman_distill"), ("540P", "magihuman_540p"), ("1080P", "magihuman_1080p")]
)
def test_the_models_are_those_of_conf(resolution: str, name: str) -> None:
    said = load_model(name)
    (mine,) = (each for each in targets(small=False) if each.name == resolution)
    for field in ("transformer", "first_stage", "distilled", "super_resolution", "codecs", "compute_dtype", "fps"):
        assert getattr(mine.model, field) == getattr(said, field), field
    assert mine.model.sizes[resolution][RATIO] == said.sizes[resolution][RATIO]
    assert mine.model.audio_latents_per_s == said.audio_latents_per_s
    assert mine.model.default_duration_s == said.default_duration_s == DURATION_S


@pytest.mark.slow
def test_all_of_it_runs_small_where_torch_and_safetensors_are_alone(tmp_path: Path) -> None:
    words = ["--small", "--device", "cpu", "--peak", "0.05", "--compiler", "eager", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALONE, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    page, found = (tmp_path / "gpu-cpu.md").read_text(), json.loads((tmp_path / "gpu-cpu.json").read_text())
    ways = ["bfloat16, eager", "bfloat16, compiled", "fp8, eager", "fp8, compiled"]
    assert f"|  | {' | '.join(ways)} |\n" in page
    assert "Seconds for a clip of 1 s" in page
    assert "| clip | stage | way | seconds | utilisation | first, s | said MB |\n" in page
    assert not [line for line in page.splitlines() if "goal" in line or " 0.0 |" in line or "0.0e+00" in line]
    assert [page.count(f"| {name} | ") for name in ("256P", "540P", "1080P")] == [6, 10, 10]
    assert set(found["clips"]["1080P"]) == {"goal_s", *ways}
    assert found["errors"]["bfloat16, eager"] == 0
    assert 1e-3 < found["errors"]["fp8, eager"] < 0.1
    for each in found["measured"]:
        assert each["seconds"] > 0
        assert (each["utilisation"] is None) == (each["stage"] == "turbo decode")
        assert each["said_bytes"] > 0 or each["stage"] == "turbo decode"


def test_what_has_cuda_in_its_name_is_tested_where_pytest_is_there_too() -> None:
    """As docs/models.md says it; here without a GPU these tests are skipped, but found."""
    files = ["tests/model/test_cuda.py", "tests/model/test_steps.py"]
    words = ["-q", "-p", "no:cacheprovider", "--noconftest", "-W", "ignore", *files, "-k", "cuda"]
    script = (
        f"import sys\nfor name in {[*OTHERS, 'hypothesis', 'xdist']}: sys.modules[name] = None\n"
        f"import pytest\nsys.exit(pytest.main({words}))"
    )
    bare = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert " skipped" in done.stdout or " passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "tflops"),
    [("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA L40S", 362), ("NVIDIA L4", 121)],
)
def test_a_card_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, tflops: float) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _device: name)
    assert card_of("cuda:0", None).peak_flops == tflops * 1e12
    assert card_of("cuda:0", 50).peak_flops == 50e12


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out.count("\n") == 1
    assert main(["--small", "--device", "cpu", "--only", "4K"]) == 2
    assert "clips are 256P, 540P, 1080P" in capsys.readouterr().out
