"""What a person is told, and when."""

import io
import logging
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.progress import PlainLines, draw, duration, plain_line, progress
from pipeline.summary import Snapshot
from pipeline.types import GroupStatus

BUSY = GroupStatus(group_id="group-0", state="busy", clip_id="pony", step=12, num_steps=32)
NOW = Snapshot(
    num_clips=24,
    num_succeeded=6,
    num_failed=1,
    in_flight=("pony", "mare"),
    cost=2400,
    cost_done=800.0,
    working_s=120.0,
    elapsed_s=130.0,
    groups=(BUSY, GroupStatus(group_id="group-1", state="starting")),
)


def test_a_line_says_counts_pace_what_is_left_and_where_each_group_is() -> None:
    assert plain_line(NOW) == (
        "6 of 24 done, 1 failed, 2 running, 180 clips/h, 4 min 0 s left; group-0 pony step 12/32, group-1 starting"
    )


def test_nothing_is_guessed_before_there_is_something_to_guess_from() -> None:
    early = replace(NOW, num_succeeded=0, cost_done=3.0)
    assert early.clips_per_hour is None
    assert early.eta_s is None
    assert replace(early, cost_done=48.0).eta_s == pytest.approx(5880)


def test_a_run_that_stops_promises_no_end() -> None:
    assert "stopping" in plain_line(replace(NOW, stopping="stopped by a signal"))
    assert "left" not in plain_line(replace(NOW, stopping="stopped by a signal"))
    assert "clips/h, paused; group-0" in plain_line(replace(NOW, paused="by ann"))


def test_plain_lines_come_with_each_clip_and_every_ten_seconds() -> None:
    now, said = [0.0], list[str]()
    lines = PlainLines(clock=lambda: now[0], say=said.append)
    for at, succeeded in ((0, 0), (1, 0), (9, 0), (10, 0), (10.5, 1), (11, 2), (12, 2), (20, 2), (21, 2)):
        now[0] = at
        lines(replace(NOW, num_succeeded=succeeded))
    assert [line.split(" of ")[0] for line in said] == ["0", "0", "2", "2"]


def test_the_live_table_names_every_group_and_its_step() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(draw(NOW))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "6 of 24 done" in text
    assert "group-0" in text
    assert "pony step 12/32" in text
    assert "group-1" in text


def test_a_terminal_gets_the_table_and_logging_goes_through_it() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    handler = logging.StreamHandler(sys.__stderr__)
    logging.getLogger().addHandler(handler)
    try:
        with progress(console) as show:
            show(NOW)
            assert handler.stream is not sys.__stderr__
        assert handler.stream is sys.__stderr__
    finally:
        logging.getLogger().removeHandler(handler)
    assert "6 of 24 done" in console.file.getvalue()  # type: ignore[attr-defined]


def test_elsewhere_plain_lines_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pipeline.progress"), progress(Console(file=io.StringIO())) as show:
        show(NOW)
    assert "6 of 24 done" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "text"), [(44.6, "45 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (3599.7, "1 h 0 min")]
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text
