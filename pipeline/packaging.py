"""Our own packages gathered in one folder, as a wheel would hold them, for machines that have what we depend on."""

import shutil
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("conf", "jobs", "model", "pipeline")
NAME = "happyhorse"


def gather_packages(folder: Path) -> None:
    """Sources, values, the small model's weights and the distribution's metadata, wherever they are installed now."""
    for name in PACKAGES:
        spec = find_spec(name)
        assert spec, name  # we run from it
        shutil.copytree(Path(str(spec.origin)).parent, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    installed = distribution(NAME)
    metadata = folder / f"{NAME}-{installed.version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(installed.read_text("METADATA") or "", encoding="utf-8")
