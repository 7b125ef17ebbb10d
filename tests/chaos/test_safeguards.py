"""Each safeguard is broken once, alone, in a copy of the tree: a test has to go red there that is green here.

Without SAFEGUARDS=all (`make safeguards`) some of them, for they take as long as so many starts of pytest.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.safeguards import SAFEGUARDS, Safeguard

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
COPIED = ("conf", "jobs", "model", "pipeline", "tests", "pyproject.toml")
TIMEOUT_S = 300
QUICK = [safeguard for safeguard in SAFEGUARDS if not safeguard.test.startswith("cluster/")]
CHOSEN = SAFEGUARDS if os.environ.get("SAFEGUARDS") == "all" else QUICK[::5]
RED = 1  # exit code of pytest: tests ran, some failed


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def broken(copy: Path, safeguard: Safeguard) -> Iterator[Path]:
    path = copy / safeguard.file
    whole = path.read_text()
    assert whole.count(safeguard.text) == 1, f"{safeguard.file} has this {whole.count(safeguard.text)} times"
    path.write_text(whole.replace(safeguard.text, safeguard.instead))
    yield copy
    path.write_text(whole)


def test_whole_they_are_green(copy: Path) -> None:
    done = run(copy, *{safeguard.test for safeguard in CHOSEN})
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("safeguard", CHOSEN, ids=lambda safeguard: safeguard.name.replace(" ", "-"))
def test_broken_it_is_noticed(broken: Path, safeguard: Safeguard) -> None:
    done = run(broken, safeguard.test)
    assert done.returncode == RED, done.stdout
    assert " failed" in done.stdout
    assert "error during collection" not in done.stdout


def run(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Without bytecode: a file that changes twice in a second would be taken for the same."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]
        + [f"tests/{test}" for test in tests],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
