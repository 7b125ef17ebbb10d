"""Which rows are rendered: filters, shards, limits; and that nothing else about a row depends on them."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.manifest.selection import Selection
from pipeline.manifest.where import Where
from tests.manifests import findings, read, table_of, write

ROWS = pa.record_batch(
    {
        "priority": pa.array([1, 4, None, 9], pa.int32()),
        "resolution": pa.array(["1080P", "256P", "1080P", None]).dictionary_encode(),
        "prompt": ["a cat", "A Cat", "dogs and cats", "50% cat_"],
        "day": [date(2026, 11, 1), date(2026, 11, 2), None, date(2026, 11, 4)],
        "price": pa.array([Decimal("1.10"), Decimal("2.20"), None, Decimal("0.5")], pa.decimal128(9, 2)),
        "flag": [True, False, None, True],
        "odd name": [0.5, 1.5, 2.5, float("nan")],
        "view": pa.array(["x", "y", "z", None], pa.string_view()),
        "时间": ["早", "晚", "早", "晚"],
    }
)
FILTERS = {
    "priority > 3": [1, 3],
    'priority > 0 and resolution == "1080P"': [0],
    "priority >= 4 or resolution == '1080P'": [0, 1, 2, 3],
    "not priority > 3": [0],
    "1 < priority <= 4": [1],
    "3 < priority": [1, 3],
    "priority == 1.0": [0],
    "priority in (1, 9)": [0, 3],
    "priority not in [1, 9]": [1],
    'resolution in {"256P", "540P"}': [1],
    "priority is None": [2],
    "priority is null or priority > 8": [2, 3],
    "priority is not None": [0, 1, 3],
    "resolution == null": [3],
    '"cat" in prompt': [0, 2, 3],
    '"cat" not in prompt': [1],
    '"%" in prompt': [3],
    "flag": [0, 3],
    "flag == false": [1],
    "not flag": [1],
    'day >= "2026-11-02"': [1, 3],
    'price > "1.5"': [1],
    "price < 1": [3],
    'col("odd name") > 1': [1, 2],
    'view != "x"': [1, 2],
    '时间 == "早"': [0, 2],
    "priority > -2": [0, 1, 3],
    "priority == priority": [0, 1, 3],
    " priority > 3 ": [1, 3],
    "true": [0, 1, 2, 3],
    "(priority > 3) == flag": [3],
}


@pytest.mark.parametrize("text", FILTERS)
def test_filters(text: str) -> None:
    assert [n for n, taken in enumerate(Where(text).mask(ROWS).to_pylist()) if taken] == FILTERS[text]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("priority = 3", "where=priority = 3: invalid syntax at character 10; equality is written =="),
        ("priority >", "where=priority >: invalid syntax"),
        ("priority + 1 > 3", "that is not known, expected COLUMN == VALUE"),
        ("priority > 3j", "that is not known"),
        ("__import__('os')", "a call is not known"),
        ("prompt.upper() == 'A'", "a call is not known"),
        ("col(prompt) == 'A'", "a call is not known"),
        ("[p for p in prompt]", "that is not known"),
        ("(lambda: 1)", "that is not known"),
        ("priority == '3'", "int32 and string cannot be used so"),
        ("priority > 3 and resolution > 4", "at character 18: resolution > 4"),
        ("day > 'soon'", "cannot be used so"),
        ("priority", "a condition is expected, got values of int32, at character 1: priority"),
        ("priority is 3", "only `is None` and `is not None` are known, at character 1: priority is 3"),
        ("priority < None", "only `is None` and `is not None` are known"),
        ("prompt in 'a cat'", 'expected COLUMN in (A, B) or "TEXT" in COLUMN'),
        ("(" * 250 + "flag" + ")" * 250, "too many nested parentheses"),
        ("not " * 240 + "flag", ""),
        ("x" * 1001, "where: 1001 characters, expected at most 1000"),
        ("", "where=: invalid syntax"),
    ],
)
def test_filters_that_are_none(text: str, message: str) -> None:
    if text.startswith("not not"):
        assert Where(text).mask(ROWS).to_pylist() == [True, False, False, True]
        return
    with pytest.raises(ConfigError) as caught:
        Where(text).mask(ROWS)
    assert message in str(caught.value)


@example("9223372036854775808")
@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_a_message(text: str) -> None:
    try:
        where = Where(text)
        if where.columns <= set(ROWS.schema.names):
            where.mask(ROWS)
    except ConfigError:
        pass


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1/0", "3", "1/2/3", "-1/3", "1/3 ", "a/b", ""])
def test_shards_that_are_none(shard: str) -> None:
    with pytest.raises(ConfigError, match="expected NUMBER/COUNT"):
        Selection(shard=shard)


def test_a_limit_of_nothing() -> None:
    with pytest.raises(ConfigError, match="limit is 0, expected at least 1"):
        Selection(limit=0)


def test_names_and_seeds_do_not_depend_on_what_is_selected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that say the same are numbered through the whole manifest."""
    monkeypatch.setattr("pipeline.manifest.tables.BATCH_ROWS", 4)
    columns = {"prompt": ["a", "b", "a"] * 7, "clip_id": [None, None, "x"] + [None] * 18, "n": range(21)}
    path = write(tmp_path, columns)
    everything = list(read(path).clips)
    assert len({clip.clip_id for clip in everything}) == 21
    for selection in (
        Selection(where="n > 10"),
        Selection(shard="2/3"),
        Selection(limit=5),
        Selection(where='prompt == "a" and n > 3', shard="1/2", limit=2),
    ):
        chosen = list(read(path, selection=selection).clips)
        assert 0 < len(chosen) < 21
        assert chosen == [everything[clip.row] for clip in chosen]


def test_shards_are_the_whole_manifest_and_overlap_nowhere(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": [f"p{n}" for n in range(20)]})
    rows = [read(path, selection=Selection(shard=f"{number}/3")).index.rows.tolist() for number in (1, 2, 3)]
    assert rows == [list(range(0, 20, 3)), list(range(1, 20, 3)), list(range(2, 20, 3))]


def test_a_limit_counts_over_batches_and_stops_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.manifest.tables.BATCH_ROWS", 3)
    path = write(tmp_path, {"prompt": ["a"] * 7 + [""] * 7})
    assert read(path, selection=Selection(limit=7)).index.rows.tolist() == list(range(7))
    assert len(findings(path, selection=Selection(limit=8))) == 1


def test_only_selected_rows_are_checked_and_come_back(tmp_path: Path) -> None:
    columns = {"prompt": ["a", "", "c"], "seed": [1.0, 2.5, 3.0], "image": [None, "gone.png", None], "n": [1, 2, 3]}
    manifest = read(write(tmp_path, columns), selection=Selection(where="n != 2"))
    assert table_of(manifest)["n"].to_pylist() == [1, 3]
    assert [manifest.row(clip)["n"] for clip in manifest.clips] == [1, 3]
    assert len(findings(tmp_path / "m.parquet")) == 3


def test_a_selection_that_takes_nothing(tmp_path: Path) -> None:
    (line,) = findings(write(tmp_path, {"prompt": ["a"]}), selection=Selection(where='prompt == "b"'))
    assert line == "got none of 1 row, expected a selection that takes at least one"


def test_a_filter_by_a_column_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": ["a"], "note": ["b"]})
    with pytest.raises(ConfigError, match=r"where=notes == 1: no column notes \(there are: prompt, note\)"):
        read(path, selection=Selection(where="notes == 1"))
