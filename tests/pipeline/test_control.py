"""What people ask of a run: who asked first stays, a cancel is for one run, storage that fails changes nothing."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.control import (
    PAUSE,
    Listener,
    Request,
    ask,
    asked_of,
    cancel_key,
    check_not_paused,
    forget_cancels,
    new_request,
    read_request,
)
from pipeline.errors import OutputPaused, StoreError
from pipeline.store import Part, open_store
from pipeline.types import Wish
from tests.memory_store import MemoryStore

ANN = Request(user="ann", host="h1", at="2026-11-22T01:00:00+00:00", reason="the card = needed\nelsewhere")
BOB = Request(user="bob", host="h2", at="2026-11-22T02:00:00+00:00")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def listener_of(store: MemoryStore, run_id: str = "run-1") -> Listener:
    return Listener(store, run_id=run_id, period_s=0.01)


def test_a_request_says_who_when_and_why(store: MemoryStore) -> None:
    assert ask(store, PAUSE, ANN) == ANN
    assert read_request(store, PAUSE) == ANN
    assert str(ANN) == "by ann on h1 at 2026-11-22T01:00:00+00:00 (the card = needed elsewhere)"
    assert str(BOB) == "by bob on h2 at 2026-11-22T02:00:00+00:00"
    assert new_request(None).user


def test_whoever_asked_first_stays(store: MemoryStore) -> None:
    ask(store, PAUSE, ANN)
    assert ask(store, PAUSE, BOB) == ANN
    assert read_request(store, PAUSE) == ANN


def test_a_cancel_is_for_the_run_that_it_names(store: MemoryStore) -> None:
    ask(store, cancel_key("run-1"), ANN)
    assert asked_of(store, "run-1").wish == Wish(kind="cancel", said=str(ANN))
    assert asked_of(store, "run-2").wish == Wish()
    assert asked_of(store, None).cancel is None


def test_a_paused_run_can_be_canceled(store: MemoryStore) -> None:
    ask(store, PAUSE, ANN)
    assert asked_of(store, "run-1").wish == Wish(kind="pause", said=str(ANN))
    ask(store, cancel_key("run-1"), BOB)
    assert asked_of(store, "run-1").wish.kind == "cancel"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"user": "ann"', b"\xff\xfe"])
def test_what_cannot_be_read_is_a_request_all_the_same(store: MemoryStore, data: bytes) -> None:
    store.put(PAUSE, data)
    assert asked_of(store, None).wish.kind == "pause"
    with pytest.raises(OutputPaused, match="by somebody on some machine"):
        check_not_paused(store)


def test_a_paused_output_says_what_lets_it_go_on(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "my films"))
    check_not_paused(store)
    ask(store, PAUSE, ANN)
    with pytest.raises(OutputPaused) as raised:
        check_not_paused(store)
    assert str(raised.value) == (
        f"{store.uri} was paused {ANN}: nothing was started; `happyhorse resume 'output={store.uri}'` lets it go on"
    )


def test_requests_to_runs_that_are_over_are_forgotten(store: MemoryStore) -> None:
    for key in (PAUSE, cancel_key("run-1"), cancel_key("run-2"), "control/notes.txt"):
        ask(store, key, ANN)
    forget_cancels(store, but="run-2")
    assert sorted(store.objects) == sorted([PAUSE, cancel_key("run-2"), "control/notes.txt"])


def test_a_run_hears_what_it_is_asked_and_what_is_taken_back(store: MemoryStore) -> None:
    listener = listener_of(store)
    assert listener.wish() == Wish()
    ask(store, PAUSE, ANN)
    listener.look()
    assert listener.wish().kind == "pause"
    store.delete(PAUSE)
    listener.look()
    assert listener.wish() == Wish()
    ask(store, cancel_key("run-1"), ANN)
    listener.look()
    assert listener.wish().kind == "cancel"


def test_it_listens_until_the_run_is_over(store: MemoryStore) -> None:
    listener = listener_of(store)
    with listener:
        ask(store, PAUSE, ANN)
        wait_for(lambda: listener.wish().kind == "pause")
    wait_for(lambda: not listener._thread.is_alive())


class Deaf(MemoryStore):
    is_deaf = False

    def get_part(self, key: str, start: int, stop: int, *, etag: str | None = None) -> Part | None:
        if self.is_deaf:
            raise StoreError("cannot read: storage is away")
        return super().get_part(key, start, stop, etag=etag)


def test_storage_that_is_away_is_one_warning_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    store = Deaf()
    ask(store, PAUSE, ANN)
    listener = listener_of(store)
    listener.look()
    store.is_deaf = True
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            listener.look()
    assert len(caplog.records) == 1
    assert listener.wish().kind == "pause"
    store.is_deaf = False
    store.delete(PAUSE)
    listener.look()
    assert listener.wish() == Wish()


def wait_for(happened: Callable[[], bool]) -> None:
    """At once where it happens; a minute is a failure."""
    for _ in range(6000):
        if happened():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never happened")
