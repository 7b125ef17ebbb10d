"""What clips are called, and the seeds that follow from their names."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.manifest.ids import MAX_SEED, SAFE_ID, default_seed
from tests.manifests import read, write


def test_identity_follows_what_the_row_says_about_its_clip(tmp_path: Path) -> None:
    def ids(columns: dict[str, Any]) -> list[str]:
        return [clip.clip_id for clip in read(write(tmp_path, columns)).clips]

    (red,) = ids({"prompt": ["red"]})
    assert ids({"prompt": ["blue", "red"]})[1] == red, "position"
    assert ids({"prompt": ["red"], "priority": [9]}) == [red]
    assert ids({"prompt": ["red"], "note": ["x"]}) == [red]
    for column, value in {"prompt": "blue", "duration": 4, "seed": 1, "audio": False, "steps": 8}.items():
        assert ids({"prompt": ["red"], column: [value]}) != [red], column


def test_rows_that_say_the_same_are_two_clips_with_two_seeds(tmp_path: Path) -> None:
    first, second = read(write(tmp_path, {"prompt": ["a", "a"]})).clips
    assert second.clip_id == f"{first.clip_id}-2"
    assert first.seed != second.seed


@given(st.text(max_size=200))
def test_ids_are_safe_file_names(text: str) -> None:
    if SAFE_ID.fullmatch(text):
        assert text.isascii()
        assert not set(text) & set("/\\\n :*?\"'<>|\x00")
        assert text not in (".", "..")
        assert text[0] not in ".-"


@given(st.text(min_size=1))
def test_default_seeds_are_seeds(clip_id: str) -> None:
    assert 0 <= default_seed(clip_id) <= MAX_SEED
