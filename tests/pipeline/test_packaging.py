"""What other machines are given to run."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from pipeline.packaging import PACKAGES, gather_packages


def test_the_gathered_folder_runs_by_itself(tmp_path: Path) -> None:
    gather_packages(tmp_path)
    asked = "import jobs, pipeline, model, conf; print(*(each.__file__ for each in (jobs, pipeline, model, conf)))"
    found = subprocess.run(
        [sys.executable, "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert all(Path(file).is_relative_to(tmp_path) for file in found.split())
    said = subprocess.run(
        [sys.executable, "-m", "jobs", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert said == f"happyhorse {version('happyhorse')}\n"


def test_it_holds_values_and_weights_and_a_name_but_no_compiled_files(tmp_path: Path) -> None:
    gather_packages(tmp_path)
    assert (tmp_path / "conf" / "render.yaml").is_file()
    assert (tmp_path / "model" / "foal" / "weights" / "base" / "model.safetensors").is_file()
    (metadata,) = tmp_path.glob("happyhorse-*.dist-info/METADATA")
    assert f"Version: {version('happyhorse')}" in metadata.read_text(encoding="utf-8")
    assert not [*tmp_path.rglob("__pycache__")]


def test_it_holds_what_a_wheel_would(tmp_path: Path) -> None:
    """Hatch takes what git does not ignore."""
    gather_packages(tmp_path)
    root = Path(__file__).parents[2]
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *PACKAGES]
    listed = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {each for each in found if ".dist-info/" not in each} == set(listed)
