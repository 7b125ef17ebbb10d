"""A stop that comes while others have the signals."""

import signal
import threading

import pytest

from pipeline.signals import heard_at_last


def test_a_stop_whose_handler_does_nothing_is_heard_at_the_end() -> None:
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with pytest.raises(KeyboardInterrupt), heard_at_last():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_signals_and_none_are_no_stop() -> None:
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with heard_at_last():
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_other_threads_have_no_signals() -> None:
    ended = []

    def run() -> None:
        with heard_at_last():
            ended.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert ended == [True]
