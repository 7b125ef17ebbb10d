"""How leases lie in storage: below `lease/`, a claim for each holder, written once, and beside it its sign of life.

`<epoch>.json`, or `<epoch>.<run id>.json` where several creators of one name may win; `<epoch>.<run id>.renewed.json`.
The highest epoch counts and in it the oldest claim by the store's clock, then by name. The highest is never removed,
so that an epoch never comes again; whoever has a new one removes what lies below.
"""

import json
import logging
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from pipeline.errors import StoreError
from pipeline.lease.holder import Holder, Machine
from pipeline.probing import StoreMode
from pipeline.settings import LeaseSettings
from pipeline.store import Entry, Store
from pipeline.types import JsonDict

LEASE = "lease"
RUN_ID = re.compile(r"[\w-]+")
CLAIM = re.compile(rf"{LEASE}/(\d{{8}})(?:\.[\w-]+)?\.json")
SIGN = re.compile(rf"{LEASE}/(\d{{8}})\.[\w-]+\.renewed\.json")
HOLD_PART = 5 / 6  # of lease_s, by which others wait: the rest is for writes under way and for clocks that run unevenly
MOST_BYTES = 1 << 16
MOST_LOOKS = 10
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Somebody's word that an output is theirs from an epoch on."""

    key: str
    epoch: int
    holder: Holder
    lease_s: float  # of its holder's settings: unrenewed for that long it is void
    renewed_at: datetime  # by the store's clock

    @property
    def sign_key(self) -> str:
        return f"{LEASE}/{self.epoch:08}.{self.holder.run_id}.renewed.json"


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Under which one process takes and holds leases."""

    holder: Holder
    mode: StoreMode
    settings: LeaseSettings
    machine: Machine

    @property
    def hold_s(self) -> float:
        """How long after it was last renewed a holder may still write."""
        return self.settings.lease_s * HOLD_PART


def first_claim(store: Store) -> Claim | None:
    """The claim that counts, whether or not its holder lives; None if there never was one."""
    for _ in range(MOST_LOOKS):
        entries = {each.key: each for each in store.list(LEASE)}
        claims = [(int(match[1]), each) for each in entries.values() if (match := CLAIM.fullmatch(each.key))]
        if not claims:
            return None
        epoch = max(epoch for epoch, _ in claims)
        first = min((each for of, each in claims if of == epoch), key=lambda each: (each.modified_at, each.key))
        part = store.get_part(first.key, 0, MOST_BYTES)
        if part is not None:
            claim = _parse(store, first, epoch=epoch, data=part.data)
            sign = entries.get(claim.sign_key)
            return replace(claim, renewed_at=sign.modified_at) if sign else claim
    raise StoreError(f"{store.where(first.key)} is listed, but cannot be found")


def last_sign(store: Store, claim: Claim) -> bytes:
    """What its holder wrote last to show that it lives; empty before it did."""
    part = store.get_part(claim.sign_key, 0, MOST_BYTES)
    return part.data if part else b""


def write_sign(store: Store, claim: Claim, *, number: int, released: bool) -> None:
    values = {"number": number, "released": released, "at": datetime.now(UTC).isoformat()}
    store.put(claim.sign_key, _to_json(values))


def is_released(sign: bytes) -> bool:
    try:
        return bool(sign) and json.loads(sign)["released"] is True
    except (ValueError, KeyError, TypeError):
        return False  # not a sign that we know; whoever it is of lives


def take(store: Store, *, epoch: int, terms: Terms) -> Claim | None:
    """Claims an epoch; None if somebody else has it or a later one."""
    atomic = terms.mode.create == "atomic"
    key = f"{LEASE}/{epoch:08}.json" if atomic else f"{LEASE}/{epoch:08}.{terms.holder.run_id}.json"
    store.put(key, _to_json({"lease_s": terms.settings.lease_s, "holder": asdict(terms.holder)}), create=True)
    if not atomic:
        terms.machine.sleep(terms.settings.settle_s)  # until whoever came before is seen by all
    first = first_claim(store)  # told apart by its content: "exists already" may be our own lost answer
    if first is None or (first.epoch, first.holder) != (epoch, terms.holder):
        if not atomic:
            store.delete(key)  # no claim that counts: one of a later epoch, or an older one, is there
        return None
    _sweep(store, below=epoch)
    return first


def _sweep(store: Store, *, below: int) -> None:
    try:
        for entry in list(store.list(LEASE)):
            match = CLAIM.fullmatch(entry.key) or SIGN.fullmatch(entry.key)
            if match and int(match[1]) < below:
                store.delete(entry.key)
    except StoreError as error:
        log.warning("old leases are left where they are: %s", error)


def _parse(store: Store, entry: Entry, *, epoch: int, data: bytes) -> Claim:
    try:
        values = json.loads(data)
        holder, lease_s = Holder(**values["holder"]), float(values["lease_s"])
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{store.where(entry.key)} is not a lease: {type(error).__name__} {error}"
        raise StoreError(f"{reason}. If no run is at work here, delete {store.where(LEASE)} and start again") from error
    return Claim(key=entry.key, epoch=epoch, holder=holder, lease_s=lease_s, renewed_at=entry.modified_at)


def _to_json(values: JsonDict) -> bytes:
    return json.dumps(values, ensure_ascii=False, indent=1).encode() + b"\n"
