"""What was tried for each clip: `logs/<clip_id>.<attempt>.log`, written in the background while the run goes on.

Best effort: a clip is done whether or not its log could be written. Reading them takes the output alone.
"""

import logging
import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.errors import StoreError
from pipeline.lease.holding import Lease
from pipeline.redact import redacted
from pipeline.store import Store

LOGS = "logs"
MOST_WAITING = 1000  # logs that storage has not taken yet; more are dropped
CLOSE_S = 30.0  # for what is waiting when the run ends
HEAD = "clip {clip_id}, attempt {attempt}, run {run_id}, ended {ended}"
ENDED = re.compile(r"clip .*, ended (\S+)")
log = logging.getLogger(__name__)


def log_key(clip_id: str, attempt: str) -> str:
    return f"{LOGS}/{clip_id}.{attempt}.log"


class ClipLogs:
    """The writer, of one run."""

    def __init__(self, store: Store, *, run_id: str, lease: Lease) -> None:
        self._store, self._run_id, self._lease = store, run_id, lease
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clip-logs")
        self._waiting: set[Future[None]] = set()
        self._lock = threading.Lock()
        self._has_warned = False

    def write(self, clip_id: str, *, attempt: str, lines: Sequence[str]) -> None:
        """Returns at once. What cannot be written is lost, with one warning for the whole run."""
        if len(self._waiting) >= MOST_WAITING:
            self._warn("storage is too slow for them")
            return
        ended = datetime.now(UTC).isoformat(timespec="milliseconds")
        head = HEAD.format(clip_id=clip_id, attempt=attempt, run_id=self._run_id, ended=ended)
        text = redacted("\n".join([head, *lines]))
        writing = self._writer.submit(self._put, log_key(clip_id, attempt), f"{text}\n".encode(errors="replace"))
        with self._lock:
            self._waiting.add(writing)
        writing.add_done_callback(self._forget)

    def close(self) -> None:
        """Waits for what is waiting, but not for ever."""
        with self._lock:
            waiting = set(self._waiting)
        if wait(waiting, CLOSE_S).not_done:
            self._warn("storage is too slow for them")
        self._writer.shutdown(wait=False, cancel_futures=True)

    def _put(self, key: str, data: bytes) -> None:
        if self._lease.lost is not None:
            return  # somebody else's output by now
        try:
            self._store.put(key, data)
        except StoreError as error:
            self._warn(str(error))

    def _forget(self, writing: Future[None]) -> None:
        with self._lock:
            self._waiting.discard(writing)

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("logs of clips are missing: %s", reason)


@dataclass(frozen=True, kw_only=True)
class ClipLog:
    """One attempt's."""

    key: str
    text: str


def read_clip_logs(store: Store, clip_id: str) -> list[ClipLog]:
    """Of all attempts, in the order in which they ended."""
    found = []
    for entry in store.list(LOGS):
        if is_log_of(entry.key, clip_id):
            text = store.get(entry.key).decode(errors="replace")
            match = ENDED.match(text)
            ended = match[1] if match else entry.modified_at.astimezone(UTC).isoformat()
            found.append((ended, ClipLog(key=entry.key, text=text)))
    return [each for _, each in sorted(found, key=lambda pair: (pair[0], pair[1].key))]


def is_log_of(key: str, clip_id: str) -> bool:
    """Clip ids may hold dots, attempts never do; of a run's own log, what stands in their place holds a dash."""
    name, _, kind = key.removeprefix(f"{LOGS}/").rpartition(".")
    named, _, attempt = name.rpartition(".")
    return kind == "log" and named == clip_id and "-" not in attempt
