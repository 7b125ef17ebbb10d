"""Sends each notice once: a marker in storage is written before it is sent, and says afterwards what came of it.

At most once, then: where we were killed between the two it is not sent again, and a warning says that it may be lost.
What was refused for certain is kept with its payload and sent later. Where no marker can be written, since storage is
what failed, it is sent all the same: better twice than never.
"""

import json
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Literal, Protocol

from pipeline.errors import StoreError
from pipeline.nightly.channels import Channel, NotDelivered, Unsure
from pipeline.nightly.notices import Notice
from pipeline.store import Store
from pipeline.types import JsonDict

NOTICES, UNSENT = "notices", "unsent"
State = Literal["sending", "sent", "refused", "unsure"]
log = logging.getLogger(__name__)


class Now(Protocol):
    def now(self) -> datetime: ...


class Outbox:
    """In a thread of its own, so that no group waits for a slow receiver."""

    def __init__(self, store: Store, *, channels: Sequence[Channel], clock: Now, inbox: str, output: str) -> None:
        self._store, self._channels, self._clock = store, channels, clock
        self._inbox, self._output = inbox, output
        self._known: set[str] = set()  # ids that need not be looked at again
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="notices")
        self._running: list[Future[None]] = []

    def tell(self, notice: Notice) -> None:
        """Returns at once."""
        if notice.id in self._known:
            return
        self._known.add(notice.id)
        log.log(logging.INFO if notice.event == "done" else logging.WARNING, "%s", notice.text)
        payload = notice.payload(at=self._clock.now(), inbox=self._inbox, output=self._output)
        for channel in self._channels:
            self._running.append(self._thread.submit(self._tell, channel, payload))

    def send_unsent(self) -> None:
        """What was refused before, until a channel refuses again."""
        if self._channels:
            self._running.append(self._thread.submit(self._send_unsent))

    def flush(self) -> None:
        """Waits for what is being sent."""
        running, self._running = self._running, []
        for each in running:
            each.result()

    def close(self) -> None:
        self.flush()
        self._thread.shutdown()

    def _tell(self, channel: Channel, payload: JsonDict) -> None:
        try:
            state = self._state(channel, payload)
        except StoreError as error:
            log.warning("whether notice %s was sent cannot be looked up, it is sent: %s", payload["id"], error)
            state = None
        if state is None:
            self._send(channel, payload)
        elif state == "sending":
            log.warning("notice %s may not have reached its %s: it is not sent twice", payload["id"], channel.name)

    def _send_unsent(self) -> None:
        for channel in self._channels:
            try:
                for key in sorted(each.key for each in self._store.list(f"{UNSENT}/{channel.name}")):
                    if not self._send(channel, json.loads(self._store.get(key))):
                        break
            except StoreError as error:
                log.warning("notices that were refused are not sent again yet: %s", error)

    def _send(self, channel: Channel, payload: JsonDict) -> bool:
        """Whether the channel took it."""
        self._mark(channel, payload, "sending")
        body = json.dumps(payload, ensure_ascii=False).encode()
        try:
            channel.send(body, payload=payload)
        except NotDelivered as error:
            log.warning("notice %s was refused and is sent again later: %s", payload["id"], error)
            self._mark(channel, payload, "refused", reason=str(error))
            return False
        except Unsure as error:
            log.warning("notice %s may not have arrived, it is not sent twice: %s", payload["id"], error)
            self._mark(channel, payload, "unsure", reason=str(error))
            return True
        self._mark(channel, payload, "sent")
        return True

    def _state(self, channel: Channel, payload: JsonDict) -> State | None:
        """What was written of it before; None: nothing."""
        key = _marker(channel, payload)
        if self._store.head(key) is None:
            return None
        state: State = json.loads(self._store.get(key))["state"]
        return state

    def _mark(self, channel: Channel, payload: JsonDict, state: State, *, reason: str | None = None) -> None:
        """Kept for later only where it was refused; taken out before it is sent, so that it is never sent twice."""
        unsent = f"{UNSENT}/{channel.name}/{payload['id']}.json"
        values = {"state": state, "at": self._clock.now().isoformat(), "reason": reason, "payload": payload}
        try:
            if state == "sending":
                self._store.put(_marker(channel, payload), _to_json(values))
                self._store.delete(unsent)
                return
            if state == "refused":
                self._store.put(unsent, _to_json(payload))
            self._store.put(_marker(channel, payload), _to_json(values))
        except StoreError as error:
            log.warning("that notice %s is %s could not be written down: %s", payload["id"], state, error)


def _marker(channel: Channel, payload: JsonDict) -> str:
    return f"{NOTICES}/{payload['id']}.{channel.name}.json"


def _to_json(values: JsonDict) -> bytes:
    return json.dumps(values, ensure_ascii=False, indent=1).encode() + b"\n"
