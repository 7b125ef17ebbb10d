"""Getting a lease: at once where nobody has it or its holder is known to be gone, else when it is not renewed."""

import logging
from datetime import UTC, datetime

from pipeline.errors import LeaseHeld
from pipeline.lease.claims import RUN_ID, Claim, Terms, first_claim, is_released, last_sign, take
from pipeline.lease.holder import Machine, this_process
from pipeline.lease.holding import Lease
from pipeline.probing import StoreMode
from pipeline.settings import LeaseSettings
from pipeline.store import Store

POLL_S = 1.0
SAY_EVERY_S = 5.0
REAL = Machine()
log = logging.getLogger(__name__)


def acquire(store: Store, *, run_id: str, mode: StoreMode, settings: LeaseSettings, machine: Machine = REAL) -> Lease:
    """Takes the lease of an output, after waiting for as long as its last holder may live.

    LeaseHeld if that is renewed meanwhile (and `wait_s` are over). Renewing begins when it is entered as a context.
    """
    assert RUN_ID.fullmatch(run_id), run_id  # part of keys
    holder = this_process(run_id, clock_offset_s=mode.clock_offset_s)
    terms = Terms(holder=holder, mode=mode, settings=settings, machine=machine)
    waiting = _Waiting(store, terms)
    while True:
        began = machine.clock()
        epoch = waiting.free_epoch()
        claim = take(store, epoch=epoch, terms=terms) if epoch is not None else None
        if claim is not None:
            return Lease(store, claim=claim, terms=terms, taken_at=began)
        machine.sleep(min(POLL_S, settings.lease_s / 10))


class _Waiting:
    """What was seen of a holder so far, by our own clock alone."""

    def __init__(self, store: Store, terms: Terms) -> None:
        self._store, self._terms, self._machine = store, terms, terms.machine
        self._began = terms.machine.clock()
        self._seen: tuple[str, bytes] | None = None  # the claim that counts and its sign of life ...
        self._since = 0.0  # ... which it has not changed since
        self._said_at = -SAY_EVERY_S

    def free_epoch(self) -> int | None:
        """The epoch that may be claimed now; None: look again. LeaseHeld if it is not worth the wait."""
        now = self._machine.clock()  # before looking: what is read may be older than the moment it arrives
        first = first_claim(self._store)
        if first is None:
            return 1
        sign = last_sign(self._store, first)
        if self._is_free(first, sign, now=now):
            self._seen = None
            return first.epoch + 1
        if (first.key, sign) != self._seen:
            if self._seen is not None and now >= self._began + self._terms.settings.wait_s:
                raise LeaseHeld(
                    f"{self._store.uri} is held by {first.holder}, which lives; start again when it has ended, or let "
                    "this run wait for it with job.wait_s=SECONDS"
                )
            self._seen, self._since = (first.key, sign), self._machine.clock()
        self._say(first, now=now)
        return None

    def _is_free(self, first: Claim, sign: bytes, *, now: float) -> bool:
        if is_released(sign):
            return True
        if self._machine.is_gone(first.holder):
            log.info("taking over from %s: its process is gone", first.holder)
            return True
        if (first.key, sign) == self._seen and now >= self._since + first.lease_s:
            log.warning("taking over from %s: not renewed for %g s", first.holder, first.lease_s)
            return True
        return False

    def _say(self, first: Claim, *, now: float) -> None:
        if now < self._said_at + SAY_EVERY_S:
            return
        self._said_at = now
        stores_now = datetime.now(UTC).timestamp() + self._terms.mode.clock_offset_s
        age_s = max(0.0, stores_now - first.renewed_at.timestamp())
        log.info(
            "waiting for %s, last renewed %.0f s ago: taken over after %g s without a renewal",
            first.holder,
            age_s,
            first.lease_s,
        )
