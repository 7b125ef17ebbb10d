"""Bounded retries of what obstore does not try again itself.

obstore tries again, within the same bounds: connections that are dropped (also after the server has acted), reads and
plain writes that time out, answers of 5xx, 408 and 429, and objects whose bytes end early. TRANSIENT is what it gives
up at once.
"""

import logging
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.store_clients import MAX_BACKOFF_S, StorageSettings
from pipeline.store_errors import MEANINGS, explain

Made = TypeVar("Made")
TRANSIENT: tuple[tuple[str, str], ...] = (
    (r"RequestTimeout\b", "the server waited too long for our bytes; S3 says so with 400"),
    (r"OperationAborted|ConditionalRequestConflict", "somebody else is writing the same object just now; 409"),
    (r"response body", "the answer ended early: a listing, or the beginning or end of an upload in parts"),
    (r"NoSuchUpload", "an upload in parts was ended, and the answer lost: it is uploaded again"),
    (
        r"Error performing (PUT|POST|DELETE) \S+ in [\d.]+m?s - HTTP error: error sending request",
        "no answer in time to what obstore does not ask twice then: to create, to delete, to begin and end an upload",
    ),
)
log = logging.getLogger(__name__)


def is_transient(error: Exception) -> bool:
    return any(re.search(sign, str(error)) for sign, _ in TRANSIENT)


class Patience:
    """For one call: how often it is tried again, with longer and longer waits, and until when."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._tries = 0
        self._until = time.monotonic() + settings.retry_timeout_s

    def spend(self, error: Exception) -> None:
        """Waits for the next try; raises the error where there is none."""
        if not is_transient(error) or self._tries >= self._settings.retries or time.monotonic() > self._until:
            raise error
        pause_s = min(self._settings.backoff_s * 2**self._tries, MAX_BACKOFF_S) * random.uniform(0.5, 1.0)
        self._tries += 1
        log.info("storage: %s; trying again in %.1f s", explain(error), pause_s)
        time.sleep(pause_s)


def patiently(act: Callable[[], Made], settings: StorageSettings) -> Made:
    """What `act` makes, tried again after errors that pass."""
    patience = Patience(settings)
    while True:
        try:
            return act()
        except tuple(MEANINGS) as error:
            patience.spend(error)
