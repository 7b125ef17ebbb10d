"""A lease that this process holds: renewed in a thread, looked at before each write, given back at the end."""

import logging
import threading

from pipeline.errors import LeaseLost, StoreError
from pipeline.lease.claims import Claim, Terms, first_claim, take, write_sign
from pipeline.store import Store

RENEWALS = 3  # in the time after which others take an unrenewed lease
log = logging.getLogger(__name__)


class Lease:
    """The right to write below one output while it is renewed. As a context it renews itself and is given back."""

    def __init__(self, store: Store, *, claim: Claim, terms: Terms, taken_at: float) -> None:
        """`taken_at`: by the machine's clock, before the claim was written."""
        self._store, self._claim, self._terms, self._clock = store, claim, terms, terms.machine.clock
        self._until = taken_at + terms.hold_s
        self._seen_at = taken_at  # when it was last seen that no other claim counts
        self._number = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.lost: str | None = None  # why it will never be held again

    @property
    def is_held(self) -> bool:
        """Whether this process may write now, by its own clock."""
        return self.lost is None and self._clock() < self._until

    def check(self) -> None:
        """Before each write. LeaseLost if this run may write no more; a StoreError if that cannot be found out.

        Looks at a clock, and at storage only where the lease has run out, or where claims go by age.
        """
        if self.is_held and (self._is_atomic or self._clock() < self._seen_at + self._terms.settings.settle_s):
            return
        self.renew()
        if self.lost is not None:
            raise LeaseLost(self.lost)
        if not self.is_held:
            raise LeaseLost(f"the lease of {self._store.uri} has run out and could not be renewed in time")

    def renew(self) -> None:
        """Tells others that this run lives. One that has run out is taken anew, unless somebody else has it.

        What storage refuses is raised and may be tried again.
        """
        if not self._lock.acquire(timeout=self._terms.settings.lease_s):
            return  # another thread waits for storage; the clock goes on
        try:
            if self.lost is None:
                self._renew()
        finally:
            self._lock.release()

    def release(self) -> None:
        """Lets the next run begin at once. If it cannot be said the next run finds out, a little later."""
        self._ended.set()
        if not self._lock.acquire(timeout=self._terms.settings.lease_s):
            return
        try:
            if self.lost is None:
                self.lost = f"the lease of {self._store.uri} was given back"
                self._write_sign(released=True)
        except StoreError as error:
            log.warning("the lease could not be given back: %s", error)
        finally:
            self._lock.release()

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    @property
    def _is_atomic(self) -> bool:
        return self._terms.mode.create == "atomic"

    def _renew(self) -> None:
        began = self._clock()
        first = first_claim(self._store)
        if first is None or first.holder != self._terms.holder:
            who = f"{first.holder} has taken it" if first else "it was removed"
            self.lost = f"the lease of {self._store.uri} is lost, {who}: this run writes nothing more there"
            return
        if self.is_held:
            self._write_sign(released=False)
        if self.is_held:  # still: nobody can have seen it run out
            self._until, self._seen_at = began + self._terms.hold_s, began
        else:
            self._take_again(epoch=first.epoch + 1)

    def _take_again(self, *, epoch: int) -> None:
        """Nobody else held it between the two epochs, so what was planned still holds."""
        began = self._clock()
        claim = take(self._store, epoch=epoch, terms=self._terms)
        if claim is not None:
            self._claim, self._until, self._seen_at = claim, began + self._terms.hold_s, began
            log.warning("the lease of %s had run out; nobody else had taken it, it is held again", self._store.uri)

    def _write_sign(self, *, released: bool) -> None:
        self._number += 1
        write_sign(self._store, self._claim, number=self._number, released=released)

    def _keep(self) -> None:
        """The first time soon: where a store only seemed to be atomic that is found out before much is written."""
        wait_s = self._terms.settings.settle_s
        while self.lost is None and not self._ended.wait(wait_s):
            wait_s = self._terms.settings.lease_s / RENEWALS
            try:
                self.renew()
            except StoreError as error:
                log.warning("the lease is not renewed yet: %s", error)
                wait_s /= 10
        if not self._ended.is_set():
            log.error("%s", self.lost)
