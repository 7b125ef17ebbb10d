"""What people ask of runs through their output: small objects below `control/`, which a run looks at now and then.

`pause.json` stands until somebody takes it away, and keeps later runs from starting as well. `cancel.<run id>.json` is
for that run alone: no later one can be canceled by it.
"""

import json
import logging
import re
import shlex
import socket
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pipeline.errors import OutputPaused, StoreError
from pipeline.lease.holder import user_name
from pipeline.store import Store
from pipeline.types import Wish

CONTROL = "control"
PAUSE = f"{CONTROL}/pause.json"
CANCEL = re.compile(rf"{CONTROL}/cancel\.([\w-]+)\.json")
MOST_BYTES = 1 << 16
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """Who asked, when and why."""

    user: str
    host: str
    at: str  # UTC, by the clock of whoever asked
    reason: str | None = None

    def __str__(self) -> str:
        why = f" ({' '.join(self.reason.split())})" if self.reason else ""
        return f"by {self.user} on {self.host} at {self.at}{why}"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is in force; None: nothing of the kind."""

    pause: Request | None
    cancel: Request | None  # of one run

    @property
    def wish(self) -> Wish:
        if self.cancel is not None:
            return Wish(kind="cancel", said=str(self.cancel))
        return Wish(kind="pause", said=str(self.pause)) if self.pause is not None else Wish()


def new_request(reason: str | None) -> Request:
    """By whoever runs this process, now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Request(user=user_name(), host=socket.gethostname(), at=now, reason=reason)


def cancel_key(run_id: str) -> str:
    return f"{CONTROL}/cancel.{run_id}.json"


def ask(store: Store, key: str, request: Request) -> Request:
    """The request that stands now: who asked first stays."""
    standing = read_request(store, key)
    if standing is None:
        store.put(key, json.dumps(asdict(request), ensure_ascii=False, indent=1).encode() + b"\n")
    return standing or request


def read_request(store: Store, key: str) -> Request | None:
    """None if it is not there. One that cannot be read is one all the same, by somebody unknown."""
    part = store.get_part(key, 0, MOST_BYTES)
    if part is None:
        return None
    try:
        values = json.loads(part.data)
        reason = values.get("reason")
        return Request(
            user=str(values["user"]),
            host=str(values["host"]),
            at=str(values["at"]),
            reason=None if reason is None else str(reason),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return Request(user="somebody", host="some machine", at="some time")


def asked_of(store: Store, run_id: str | None) -> Asked:
    """Of a run, None: of no particular one."""
    cancel = read_request(store, cancel_key(run_id)) if run_id is not None else None
    return Asked(pause=read_request(store, PAUSE), cancel=cancel)


def resume_command(store: Store) -> str:
    return f"`happyhorse resume {shlex.quote(f'output={store.uri}')}`"


def check_not_paused(store: Store) -> None:
    """OutputPaused if nothing is to be started there."""
    request = read_request(store, PAUSE)
    if request is not None:
        raise OutputPaused(
            f"{store.uri} was paused {request}: nothing was started; {resume_command(store)} lets it go on"
        )


def forget_cancels(store: Store, *, but: str) -> None:
    """Removes requests to runs that are over. To be called by a run that has the output; best effort."""
    try:
        for entry in list(store.list(CONTROL)):
            match = CANCEL.fullmatch(entry.key)
            if match and match[1] != but:
                store.delete(entry.key)
    except StoreError as error:
        log.warning("old requests are left below %s: %s", store.where(CONTROL), error)


class Listener:
    """Looks in a thread, every `period_s`, what is asked of a run. What storage does not answer changes nothing."""

    def __init__(self, store: Store, *, run_id: str, period_s: float) -> None:
        self._store, self._run_id, self._period_s = store, run_id, period_s
        self._wish = Wish()
        self._is_deaf = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="control", daemon=True)

    def wish(self) -> Wish:
        """As it was seen last; at once."""
        return self._wish

    def look(self) -> None:
        try:
            self._wish = asked_of(self._store, self._run_id).wish
        except StoreError as error:
            if not self._is_deaf:
                log.warning("it cannot be seen what is asked of this run, which goes on as it does: %s", error)
            self._is_deaf = True
        else:
            self._is_deaf = False

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()

    def _listen(self) -> None:
        forget_cancels(self._store, but=self._run_id)
        while not self._ended.is_set():
            self.look()
            self._ended.wait(self._period_s)
