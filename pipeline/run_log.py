"""A run's own log, `logs/run.<run id>.log`: the lines that it says on stderr.

Objects cannot be appended to, so it is written whole, now and then and at the end, and its oldest lines go when it
grows long.
"""

import logging
import re
import threading
from collections import deque

from pipeline.clip_logs import LOGS
from pipeline.errors import StoreError
from pipeline.lease.holding import Lease
from pipeline.log_lines import LineFormatter
from pipeline.store import Store

MOST_BYTES = 4 << 20
FIRST_S, PERIOD_S = 5.0, 60.0  # until it is written first, and between two times
CUT = "({count} older lines are left out)"
CUT_LINE = re.compile(r"\((\d+) older lines are left out\)\n")
log = logging.getLogger(__name__)


def run_log_key(run_id: str) -> str:
    return f"{LOGS}/run.{run_id}.log"


class RunLog(logging.Handler):
    """Keeps a run's lines and writes them down while it is entered as a context."""

    def __init__(self, store: Store, *, run_id: str, lease: Lease, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self.setFormatter(LineFormatter(run_id))
        self._store, self._run_id, self._lease, self._most_bytes = store, run_id, lease, most_bytes
        self._lines: deque[bytes] = deque()
        self._num_bytes = self._num_cut = 0
        self._written: bytes | None = None
        self._has_warned = False
        self._writing = threading.Lock()  # what is older never arrives later
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="run-log", daemon=True)

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{self.format(record)}\n".encode(errors="replace")
        self._lines.append(line)
        self._num_bytes += len(line)
        while self._num_bytes > self._most_bytes and len(self._lines) > 1:
            self._num_bytes -= len(self._lines.popleft())
            self._num_cut += 1

    def write(self) -> None:
        """All lines so far, if there are new ones. That it cannot be written is one warning."""
        with self._writing:
            text = self._text()
            if text == self._written or self._lease.lost is not None:
                return
            try:
                self._store.put(run_log_key(self._run_id), text)
                self._written = text
            except StoreError as error:
                self._warn(error)

    def __enter__(self) -> "RunLog":
        logging.getLogger().addHandler(self)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        logging.getLogger().removeHandler(self)
        self.write()

    def _warn(self, error: StoreError) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("the run's log could not be written: %s", error)

    def _text(self) -> bytes:
        self.acquire()
        try:
            cut = f"{CUT.format(count=self._num_cut)}\n".encode() if self._num_cut else b""
            return cut + b"".join(self._lines)
        finally:
            self.release()

    def _keep(self) -> None:
        wait_s = FIRST_S
        while not self._ended.wait(wait_s):
            wait_s = PERIOD_S
            self.write()


def split_log(text: str) -> tuple[int, list[str]]:
    """How many older lines were left out, and those that are there."""
    match = CUT_LINE.match(text)
    return (int(match[1]), text[match.end() :].splitlines()) if match else (0, text.splitlines())
