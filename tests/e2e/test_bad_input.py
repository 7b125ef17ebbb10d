"""A user's mistake: one clear message, exit 2, and nothing was started."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from tests.e2e.runs import Caller, write_manifest
from tests.manifests import picture

GOOD = {"prompt": "A red circle stays still.", "clip_id": "good", "duration": 3}


def rows(**bad: Any) -> Callable[[Path], Path]:
    return lambda folder: write_manifest(folder / "manifest.parquet", [GOOD, GOOD | {"clip_id": "bad"} | bad])


def no_such_file(folder: Path) -> Path:
    return folder / "nothing.parquet"


def not_parquet(folder: Path) -> Path:
    (folder / "manifest.parquet").write_text('{"prompt": "x"}\n')
    return folder / "manifest.parquet"


def no_prompt_column(folder: Path) -> Path:
    return write_manifest(folder / "manifest.parquet", [{"clip_id": "a", "text": "x"}])


def no_rows(folder: Path) -> Path:
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), folder / "manifest.parquet")
    return folder / "manifest.parquet"


def broken_image(folder: Path) -> Path:
    (folder / "broken.png").write_bytes(picture()[:200])
    return rows(image="broken.png")(folder)


def small_image(folder: Path) -> Path:
    (folder / "small.png").write_bytes(picture(200, 200))
    return rows(image="small.png")(folder)


MISTAKES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "no such file": (no_such_file, ["nothing.parquet"]),
    "not Parquet": (not_parquet, ["manifest.parquet", "Parquet"]),
    "no prompt column": (no_prompt_column, ["prompt"]),
    "no rows": (no_rows, ["no rows"]),
    "empty prompt": (rows(prompt=""), ["row 1", "prompt"]),
    "duplicate clip_id": (rows(clip_id="GOOD"), ["clip_id", "GOOD"]),
    "unsafe clip_id": (rows(clip_id="../up"), ["row 1", "clip_id", "../up"]),
    "unknown ratio": (rows(ratio="2:1"), ["row 1", "ratio", "2:1", "16:9"]),
    "unknown duration": (rows(duration=60), ["row 1", "duration", "60", "3"]),
    "negative seed": (rows(seed=-1), ["row 1", "seed", "-1", "2147483647"]),
    "missing image": (rows(image="nowhere.png"), ["row 1", "image", "nowhere.png"]),
    "broken image": (broken_image, ["row 1", "image", "broken.png", "cut off or damaged"]),
    "small image": (small_image, ["row 1", "image", "200", "300"]),
    "long prompt": (rows(prompt="red " * 2000), ["row 1", "prompt", "8000", "5000"]),
}


@pytest.mark.e2e
@pytest.mark.parametrize("name", MISTAKES)
def test_a_bad_manifest_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected = MISTAKES[name]
    output = tmp_path / "output"
    assert main(["render", f"manifest={make(tmp_path)}", f"output={output}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("happyhorse: ")
    assert [word for word in expected if word not in err] == [], err
    assert not output.exists()


@pytest.mark.e2e
def test_all_bad_rows_are_listed_at_once(tmp_path: Path, caller: Caller) -> None:
    """In a process of its own, to see that nothing else is said and no Ray was started."""
    bad = [GOOD | {"clip_id": f"bad-{n}", "seed": -n} for n in range(1, 4)] + [GOOD | {"clip_id": "x", "ratio": "2:1"}]
    done = caller.render(write_manifest(tmp_path / "manifest.parquet", bad), tmp_path / "output")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert "4 problems, nothing was started" in lines[0]
    assert [line.split(",")[0].strip() for line in lines[1:]] == ["row 0", "row 1", "row 2", "row 3"]
    assert not (tmp_path / "output").exists()


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("weights=/nowhere/at/all", "/nowhere/at/all"),
        ("model.transformer.num_layers=8", "block.layers.7.attention.linear_qkv.weight"),
        ("parallel.tp=3", "1, 2, 4"),
        ("media.crf=99", "crf is 99, expected 0 to 51"),
        ("cluster.device=tpu", "auto, cpu, cuda"),
    ],
)
def test_bad_settings_are_refused(word: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_manifest(tmp_path / "manifest.parquet", [GOOD])
    assert main(["render", f"manifest={manifest}", f"output={tmp_path / 'output'}", word]) == 2
    out, err = capsys.readouterr()
    assert (out, expected in err) == ("", True), err
    assert not (tmp_path / "output").exists()
