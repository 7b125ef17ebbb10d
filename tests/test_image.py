"""The Dockerfile against the repository. It cannot be built here; what it says can be compared with what there is."""

import re
import shlex
import subprocess
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from pipeline.kuberay.objects import CACHE, ENTRYPOINT

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HOST = re.compile(r"^[\w-]+\.[\w.-]+/")  # a registry's, in front of an image


def steps() -> list[tuple[str, str]]:
    """(instruction, rest of its line), continued lines joined, comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def copied() -> list[tuple[str, str]]:
    """(path in the repository, place in the image)"""
    found = []
    for name, rest in steps():
        if name == "COPY" and "--from=" not in rest:
            *sources, target = shlex.split(rest)
            found += [(source, target) for source in sources]
    return found


def test_every_path_that_is_copied_is_committed() -> None:
    assert len(copied()) >= 8
    for source, _ in copied():
        listed = subprocess.run(["git", "ls-files", "--", source], cwd=ROOT, capture_output=True, text=True, check=True)
        assert listed.stdout, source


def test_what_the_wheel_is_made_of_is_copied() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {*wheel, "pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert needed <= {source for source, _ in copied()}


def test_nothing_that_is_copied_is_kept_out_of_the_build() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule[0] == "!"}
    assert let_in == {source for source, _ in copied()}
    kept_out = [rule for rule in rules[1:] if rule[0] != "!"]
    assert not [source for source, _ in copied() for rule in kept_out if fnmatchcase(source, rule)]


def test_the_image_is_what_the_objects_rely_on() -> None:
    said = dict(steps())
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert said["USER"] == "1000"  # a number: Kubernetes cannot tell that a name is not root
    assert f"{said['WORKDIR']}/.cache" == CACHE
    assert f"--home-dir {said['WORKDIR']} " in text
    assert "wget" in text
    module = ENTRYPOINT.removeprefix("python -m ")
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_extras_and_python_exist() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    extras = set(re.findall(r"happyhorse\[([\w,]+)\]", text)[0].split(","))
    assert extras <= set(PROJECT["project"]["optional-dependencies"])
    (base,) = (rest.partition("=")[2] for name, rest in steps() if name == "ARG")
    major, minor = map(int, re.findall(r"python:(\d+)\.(\d+)", base)[0])
    least = tuple(map(int, re.findall(r"\d+", PROJECT["project"]["requires-python"])))
    assert (major, minor) >= least
    assert not HOST.match(base)


@pytest.mark.parametrize("name", ["FROM", "RUN", "COPY", "USER", "WORKDIR", "CMD"])
def test_instructions_are_docker_s_own(name: str) -> None:
    known = {"ARG", "FROM", "WORKDIR", "RUN", "COPY", "USER", "ENV", "CMD"}
    assert name in {each for each, _ in steps()} <= known
