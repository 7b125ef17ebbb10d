"""Patterns and names, without storage: what is filled in, and what is refused and why."""

import datetime
import re
import unicodedata
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.counting import counted
from pipeline.errors import ConfigError
from pipeline.export.checking import check_names
from pipeline.export.names import name_problem, parse_pattern
from pipeline.export.rows import Row

KINDS = ("mp4", "wav", "jpg")


def make_row(clip_id: str, *, kinds: tuple[str, ...] = KINDS, **values: Any) -> Row:
    return Row(clip_id=clip_id, record="", kinds=kinds, values={"clip_id": clip_id, **values}, cells={})


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{clip_id}.{kind}", "a.mp4"),
        ("{shot:04}/{clip_id}.{kind}", "0012/a.mp4"),
        ("{shot:03d}x.{kind}", "012x.mp4"),
        ("{scene}-{take}-{good}.{kind}", "夜-2.5-true.mp4"),
        ("{day}/{whole}/{price}.{kind}", "2026-11-21/3/0.10.mp4"),
        ("{{{clip_id}}}.{kind}", "{a}.mp4"),
        ("{a column with spaces}.{kind}", "x.mp4"),
    ],
)
def test_a_pattern_is_filled_with_columns(pattern: str, name: str) -> None:
    values = {
        "clip_id": "a",
        "kind": "mp4",
        "shot": 12,
        "scene": "夜",
        "take": 2.5,
        "whole": 3.0,
        "good": True,
        "day": datetime.date(2026, 11, 21),
        "price": Decimal("0.10"),
        "a column with spaces": "x",
    }
    assert parse_pattern(pattern).fill(values) == name


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("{}.{kind}", "expected a column's name in braces"),
        ("{clip_id!r}", "expected a column's name in braces"),
        ("{clip_id", "expected '}'"),
        ("{shot:>999999999}", "is no width such as 04"),
        ("{shot:999}", "is no width such as 04"),
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pattern(pattern)
    assert said in str(caught.value)
    assert pattern in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "column x is empty"),
        ("", "column x is empty"),
        ("a/b", "holds a /"),
        ("/etc/passwd", "holds a /"),
        ([1], "got list"),
        (b"x", "got bytes"),
        (datetime.datetime(2026, 11, 21, 10, 30), "it holds :"),
        ("a\\b", "it holds \\"),
        ("two\nlines", "control characters"),
        ("\ud800", "control characters"),
        ("x" * 300, "longer than 230 bytes"),
        (".hidden", "hidden"),
        ("CON", "a device's name"),
        (" x", "begins with a space"),
    ],
)
def test_a_cell_that_makes_no_safe_name_is_refused(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_pattern("{x}.mp4").fill({"x": value})


@pytest.mark.parametrize("name", ["/a", "a//b", "../a", "a/..", "a/./b", "", "a/", "a.", "x#12", "a/" * 400 + "b"])
def test_an_unsafe_path_is_refused(name: str) -> None:
    assert name_problem(name)


@given(st.text(min_size=1, max_size=20))
def test_no_cell_leaves_its_folder(text: str) -> None:
    try:
        name = parse_pattern("films/{x}.mp4").fill({"x": text})
    except ValueError:
        return
    folder, _, rest = name.partition("/")
    assert folder == "films"
    assert "/" not in rest
    assert rest == f"{text}.mp4"


def test_a_width_is_for_whole_numbers() -> None:
    with pytest.raises(ValueError, match="column shot: got '12', expected a whole number for 04"):
        parse_pattern("{shot:04}").fill({"shot": "12"})


HINT = " in the name would keep them apart"


def refused(rows: list[Row], pattern: str, kinds: tuple[str, ...] = KINDS) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_names(rows, parse_pattern(pattern), kinds)
    title, *lines = str(caught.value).split("\n  ")
    lines = [line for line in lines if not line.endswith(HINT)]
    assert title == f"name={pattern}: {counted(len(lines), 'problem')}, nothing was written"
    return lines


def test_good_names_are_counted() -> None:
    assert check_names([make_row("a"), make_row("b")], parse_pattern("{clip_id}.{kind}"), KINDS) == 2


def test_the_same_name_twice_names_both_clips() -> None:
    rows = [make_row("a", shot=1), make_row("b", shot=2), make_row("c", shot=1)]
    assert refused(rows, "{shot}.{kind}", ("mp4",)) == ["1.mp4 is the name of clip a (mp4) and of clip c (mp4)"]


@pytest.mark.parametrize(
    ("one", "other"), [("Clip", "clip"), ("STRASSE", "straße"), ("é", unicodedata.normalize("NFD", "É"))]
)
def test_names_that_some_disks_take_for_one_are_the_same(one: str, other: str) -> None:
    rows = [make_row("a", title=one), make_row("b", title=other)]
    (line,) = refused(rows, "{title}.{kind}", ("mp4",))
    assert line.endswith("is the name of clip a (mp4) and of clip b (mp4)")


def test_kinds_of_one_clip_need_names_of_their_own() -> None:
    assert refused([make_row("a")], "{clip_id}.bin", ("mp4", "wav")) == [
        "a.bin is the name of clip a (mp4) and of clip a (wav)"
    ]


@pytest.mark.parametrize(
    ("rows", "pattern", "lacking"),
    [
        ([make_row("a", shot=1), make_row("b", shot=1)], "{shot}.{kind}", "{clip_id}"),
        ([make_row("a", attempt=1), make_row("a", attempt=2)], "{clip_id}.{kind}", "{attempt}"),
        ([make_row("a"), make_row("b")], "same", "{clip_id} and {kind}"),
        ([make_row("a", shot=11), make_row("a1", shot=1)], "{clip_id}{shot}.{kind}", None),
    ],
)
def test_what_would_keep_names_apart_is_said(rows: list[Row], pattern: str, lacking: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        check_names(rows, parse_pattern(pattern), ("mp4", "wav"))
    hints = [line for line in str(caught.value).split("\n  ") if line.endswith(HINT)]
    assert hints == ([f"{lacking}{HINT}"] if lacking else [])


@pytest.mark.parametrize("pattern", ["{clip_id}.{end}", "{clip_id}.{end}/{kind}"])
def test_the_index_keeps_its_names(pattern: str) -> None:
    (line,) = refused([make_row("Index", end="csv")], pattern, ("mp4",))
    assert "would take the place of the index" in line


def test_all_bad_cells_are_counted_and_twenty_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        check_names([make_row(f"c{n}", shot=None) for n in range(50)], parse_pattern("{shot}.{kind}"), KINDS)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("50 problems, nothing was written")
    assert lines[1] == "  clip c0: column shot is empty"
    assert (len(lines), lines[-1]) == (22, "  and 30 more")
