"""How a run stands, from its output alone: who has it, whether it lives, and why clips failed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.errors import ConfigError
from pipeline.lease.acquiring import acquire
from pipeline.lease.holder import Machine
from pipeline.lease.looking import look
from pipeline.manifest.index import index_of
from pipeline.results import Moment, RunFacts, write_run
from pipeline.settings import LeaseSettings
from pipeline.status import Reason, folded, read_status, reasons_of
from pipeline.store import Store
from tests.clips import make_clip, make_record, outcomes_of
from tests.leases import ATOMIC, lease_of
from tests.memory_store import MemoryStore
from tests.pipeline.test_results import FACTS


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(clock=lambda: datetime.now(UTC).timestamp())


def write(store: Store, facts: RunFacts, moment: Moment | None = None) -> None:
    clips = [make_clip(name) for name in "abc"]
    outcomes = outcomes_of(index_of(clips, ["0" * 16] * 3), {"a": make_record(clips[0]), "b": "finish: no disk"})
    write_run(store, facts, outcomes, moment or Moment())


def held(store: MemoryStore) -> RunFacts:
    """Facts of a run that has the output."""
    lease_of(store)
    seen = look(store)
    assert seen is not None
    return replace(FACTS, run_id=seen.holder.run_id)


def test_where_no_run_was_there_is_no_status(store: MemoryStore) -> None:
    with pytest.raises(ConfigError, match="no run has been at work there"):
        read_status(store)


def test_a_run_at_work(store: MemoryStore) -> None:
    facts = held(store)
    write(store, facts, Moment(eta_s=60.0))
    found = read_status(store)
    assert (found.is_live, found.run_id) == (True, facts.run_id)
    assert found.run is not None
    assert (found.run["eta_s"], found.run["states"]["FAILED"]) == (60.0, 1)
    assert found.age_s is not None
    assert found.age_s < 60
    assert found.reasons == (Reason(text="finish: no disk", count=1, clips=("b",)),)


def test_one_that_has_written_nothing_yet_is_not_told_by_what_an_earlier_one_wrote(store: MemoryStore) -> None:
    write(store, replace(FACTS, run_id="earlier"))
    held(store)
    found = read_status(store)
    assert (found.is_live, found.run) == (True, None)


def test_one_that_ended(store: MemoryStore) -> None:
    lease = lease_of(store)
    seen = look(store)
    assert seen is not None
    write(store, replace(FACTS, run_id=seen.holder.run_id, ended_at=datetime.now(UTC)))
    assert (read_status(store).is_live, read_status(store).holds) == (False, True)
    lease.release()
    assert (read_status(store).is_live, read_status(store).holds) == (False, False)


def test_one_that_is_silent_may_be_gone(store: MemoryStore) -> None:
    facts = held(store)
    write(store, facts)
    found = read_status(store, now=datetime.now(UTC) + timedelta(minutes=2))
    assert found.seen is not None
    assert (found.seen.state, found.is_live) == ("silent", True)


def test_one_whose_process_is_gone(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, held(store))
    monkeypatch.setattr("pipeline.lease.looking.is_gone", lambda holder: True)
    found = read_status(store)
    assert found.seen is not None
    assert (found.seen.state, found.is_live) == ("gone", False)


def test_whoever_cleans_is_no_run(store: MemoryStore) -> None:
    write(store, replace(FACTS, run_id="earlier", ended_at=datetime.now(UTC)))
    acquire(store, run_id="clean-1", mode=ATOMIC, settings=LeaseSettings(), machine=Machine(is_gone=lambda _: True))
    found = read_status(store)
    assert (found.run_id, found.is_live) == ("earlier", False)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("render: group-1: no sign for 31.5 s", "render: group-22: no sign for 7 s", True),
        ("finish: /tmp/clip-0001.0badcafe.mp4 is empty", "finish: /tmp/clip-0002.1badcafe.mp4 is empty", True),
        ("finish: ffmpeg said no", "finish: no space left", False),
    ],
)
def test_reasons_that_differ_in_numbers_alone_are_one(one: str, other: str, same: bool) -> None:
    assert (folded(one, clip_id="clip-0001") == folded(other, clip_id="clip-0002")) == same


def test_a_clips_own_name_is_no_reason_of_its_own_but_words_stay() -> None:
    assert folded("encode: sunset: too long", clip_id="sunset") == folded("encode: horses: too long", clip_id="horses")
    assert folded("a bad thing", clip_id="a") == "a bad thing"
    assert folded("the disk face is bad", clip_id="x") == "the disk face is bad"


def test_the_commonest_reason_comes_first_with_examples() -> None:
    failures = {f"clip-{n}": f"render: {n} times" for n in range(5)} | {"other": "finish: no"}
    first, second = reasons_of(failures)
    assert first == Reason(text="render: # times", count=5, clips=("clip-0", "clip-1", "clip-2"))
    assert second.clips == ("other",)
