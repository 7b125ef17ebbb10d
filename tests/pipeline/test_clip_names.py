"""A clip's id is part of file names: whatever id a manifest gives, its files lie where they should, on a real disk."""

from pathlib import Path

import pytest

from pipeline.ledger import failed_key, record_key
from pipeline.manifest.ids import SAFE_ID
from pipeline.store import open_store
from tests.manifests import findings, read, write

ALLOWED = ["a", "A" * 128, "0...", "a..", "a..b", "x.json", "C.-_", "nul", "con.mp4", "a--", "results.parquet"]
REFUSED = [
    *("", ".", "..", "../a", "a/../b", "/a", "a/b", "a\\b", "~", "-rf", ".hidden", "_SUCCESS", "A" * 129, "a b", "a\n"),
    *("a\0", "a:b", "a%2fb", "a*", "图", "ａ", "a\u202e", "a#1", "$HOME", "`id`", "a'b", "C:", "a\r"),
]


@pytest.mark.parametrize("clip_id", ALLOWED)
def test_files_of_an_id_stay_in_their_folders(clip_id: str, tmp_path: Path) -> None:
    (clip,) = read(write(tmp_path, {"prompt": ["a"], "clip_id": [clip_id]})).clips
    store = open_store(str(tmp_path / "out"))
    keys = {record_key(clip.clip_id, "f" * 16), failed_key(clip.clip_id, "f" * 16)}
    keys |= {f"clips/{clip.clip_id}.{'0' * 8}.{kind}" for kind in ("mp4", "wav", "jpg")}
    for key in keys:
        store.put(key, b"x")
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - {tmp_path / "m.parquet"}
    assert written == {tmp_path / "out" / key for key in keys}
    assert all(path.parent.name in ("records", "failed", "clips") for path in written)


@pytest.mark.parametrize("clip_id", REFUSED, ids=ascii)
def test_ids_that_are_no_file_names_are_refused(clip_id: str, tmp_path: Path) -> None:
    assert not SAFE_ID.fullmatch(clip_id)
    (line,) = findings(write(tmp_path, {"prompt": ["a"], "clip_id": [clip_id]}))
    assert line.startswith("row 0, column clip_id: got ")


def test_ids_that_one_disk_takes_for_the_same_are_refused(tmp_path: Path) -> None:
    (line,) = findings(write(tmp_path, {"prompt": ["a", "b"], "clip_id": ["Horse", "hORSE"]}))
    assert "one that no other row has (row 0 has it, case is not regarded)" in line
