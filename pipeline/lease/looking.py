"""Who has an output, for those who do not want it: as far as that can be seen from here, in a few requests."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pipeline.lease.claims import first_claim, is_released, last_sign
from pipeline.lease.holder import Holder, is_gone
from pipeline.store import Store

PATIENCE = 2  # so many times its length a lease is thought to live, for clocks may differ


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The holder that counts. silent: it has not renewed its lease for long, by our clock, and is probably gone."""

    holder: Holder
    state: Literal["at work", "silent", "gone", "ended"]
    renewed_at: datetime  # by the store's clock

    @property
    def may_live(self) -> bool:
        return self.state in ("at work", "silent")


def look(store: Store, *, now: datetime | None = None) -> Seen | None:
    """None: nobody ever had it. StoreError for what cannot be read as a lease."""
    first = first_claim(store)
    if first is None:
        return None
    silent_s = timedelta(seconds=PATIENCE * first.lease_s)
    state: Literal["at work", "silent", "gone", "ended"] = "at work"
    if is_released(last_sign(store, first)):
        state = "ended"
    elif is_gone(first.holder):
        state = "gone"
    elif (now or datetime.now(UTC)) - first.renewed_at > silent_s:
        state = "silent"
    return Seen(holder=first.holder, state=state, renewed_at=first.renewed_at)
