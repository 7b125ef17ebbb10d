"""The rules of the house that a machine can check: who imports whom, how large things are, what is committed."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("conf", "jobs", "model", "pipeline")
MAY_IMPORT = {
    "conf": set[str](),
    "model": {"model"},
    "pipeline": {"model", "pipeline"},
    "jobs": {"model", "pipeline", "jobs"},
}
RAY_FILES = {
    "pipeline/cluster.py",
    "pipeline/rank_worker.py",
    "pipeline/ray_jobs.py",
    "pipeline/worker.py",
}
RAY_FOLDER = "pipeline/crews/"
MODEL_CORE = (
    "model.config",
    "model.shapes",
    "model.transformer",
    "model.parallel",
    "model.weights",
    "model.sampling.base",
)
BLOCKED = (
    "accelerate",
    "diffusers",
    "transformers",
    "ray",
    "hydra",
    "omegaconf",
    "pyarrow",
    "PIL",
    "numpy",
    "av",
    "rich",
)
MOST_LINES, MOST_FUNCTION_LINES, MOST_BYTES = 400, 80, 50 << 20
PROVIDED_BY = {
    "PIL": "pillow",
    "ffmpeg": "ffmpeg-python",
    "hydra": "hydra-core",
    "omegaconf": "hydra-core",
    "urllib3": "kubernetes",
    "yaml": "pyyaml",
}


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


SOURCES = [name for name in tracked() if name.endswith(".py") and name.split("/")[0] in PACKAGES]
ALL_PYTHON = [name for name in tracked() if name.endswith(".py")]


@cache
def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), name)


@cache
def imports(name: str) -> frozenset[str]:
    """Dotted names a file imports anywhere in it, in functions too; `from a import b` counts as a and a.b."""
    found: set[str] = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}:{node.lineno} imports relatively"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def tops(name: str) -> set[str]:
    return {each.partition(".")[0] for each in imports(name)}


def file_of(module: str) -> str | None:
    path = module.replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if (ROOT / name).is_file()), None)


def reachable(*names: str) -> set[str]:
    """Files that importing `names` may lead to, by whatever function."""
    seen: set[str] = set()
    ahead = list(names)
    while ahead:
        name = ahead.pop()
        if name not in seen:
            seen.add(name)
            ahead += [file for file in map(file_of, imports(name)) if file and file.split("/")[0] in PACKAGES]
    return seen


@pytest.mark.parametrize("name", SOURCES)
def test_imports_go_one_way(name: str) -> None:
    package = name.split("/")[0]
    assert tops(name) & {*PACKAGES, "tests"} <= MAY_IMPORT[package]


@pytest.mark.parametrize("name", SOURCES)
def test_hydra_stays_in_jobs_and_ray_where_actors_are(name: str) -> None:
    if not name.startswith("jobs/"):
        assert not tops(name) & {"hydra", "omegaconf"}
    if name not in RAY_FILES and not name.startswith(RAY_FOLDER):
        assert "ray" not in tops(name)


def test_the_core_of_the_model_needs_torch_and_safetensors_alone() -> None:
    """Imported for real, with everything else made impossible to import."""
    script = (
        f"import sys\nfor name in {BLOCKED}: sys.modules[name] = None\n"
        f"import {', '.join(MODEL_CORE)}\nprint('imported')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "imported\n", done.stderr


def commands_that_do_not_train() -> set[str]:
    """All that the command line leads to but by `happyhorse train`, which nothing else may lead to."""
    led_to = {name for name in map(file_of, imports("jobs/cli.py")) if name and name.split("/")[0] in PACKAGES}
    assert "jobs/train.py" in led_to
    return reachable(*led_to - {"jobs/train.py"})


def test_what_renders_has_never_seen_the_scenes_of_the_training() -> None:
    """By what files say they import, in functions too..."""
    files = commands_that_do_not_train()
    assert {"jobs/render.py", "model/renderer.py", "model/codecs/foal.py"} <= files
    assert "jobs/train.py" not in files
    assert not {name for name in files if name.startswith("model/foal/") and not name.endswith("__init__.py")}


def test_importing_all_that_renders_leaves_the_scenes_out() -> None:
    """... and by what Python has loaded once everything was imported."""
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in {"jobs/cli.py", *commands_that_do_not_train()}
    )
    script = f"import sys, importlib\nfor name in {modules}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "pipeline.worker" in loaded
    assert not {"model.foal.scenes", "model.foal.captions", "model.foal.train"} & set(loaded)
    assert not {"diffusers", "transformers"} & set(loaded)  # seconds, and an extra: where codecs are built alone


@pytest.mark.parametrize("name", SOURCES)
def test_third_parties_are_declared(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted_by_all = [*project["dependencies"], *extras["released"], *extras["kubernetes"]]
    declared = {re.split(r"[\[<>=]", wanted)[0] for wanted in wanted_by_all}
    foreign = tops(name) - sys.stdlib_module_names - set(PACKAGES)
    assert {PROVIDED_BY.get(each, each).replace("_", "-") for each in foreign} <= declared


@pytest.mark.parametrize("name", ALL_PYTHON)
def test_files_and_functions_are_small(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= MOST_FUNCTION_LINES, f"{name}:{node.lineno} {node.name}"


@pytest.mark.parametrize("name", [name for name in SOURCES if not name.endswith("__init__.py")])
def test_a_file_starts_by_saying_what_it_owns(name: str) -> None:
    assert ast.get_docstring(tree(name)), f"{name} has no header"


def test_there_is_no_drawer_called_utils() -> None:
    drawers = {"utils.py", "helpers.py", "common.py", "misc.py"}
    assert not [name for name in ALL_PYTHON if Path(name).name in drawers]


def broad_excepts(name: str) -> Iterator[int]:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ExceptHandler) and ast.unparse(node.body[-1]) != "raise":  # tidying up is no catching
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or getattr(kind, "id", "") in ("Exception", "BaseException") for kind in caught):
                yield node.lineno


def test_everything_is_caught_in_the_driver_and_a_worker_alone() -> None:
    places = {name for name in SOURCES if list(broad_excepts(name))}
    assert places <= {"pipeline/cluster.py", "pipeline/driver.py", "pipeline/ray_jobs.py", "pipeline/worker.py"}


def test_what_is_committed_is_small() -> None:
    assert not [name for name in tracked() if (ROOT / name).stat().st_size > MOST_BYTES]


MACHINE_PATH = re.compile(rb"(?<![\w.:/-])/(?:home|root|work|farm|Users|mnt|opt)/\w")


def test_no_path_of_somebodys_machine_is_committed() -> None:
    texts = [name for name in tracked() if not name.endswith((".safetensors", ".parquet", ".png", ".jpg", ".mp4"))]
    found = {name: match[0] for name in texts if (match := MACHINE_PATH.search((ROOT / name).read_bytes()))}
    assert not found


def test_constraints_pin_versions_and_name_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert any(line.startswith("torch==") for line in lines)
