"""Taking, keeping and losing a lease, by a clock that the tests turn."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from pipeline.errors import ConfigError, LeaseHeld, LeaseLost, StoreError
from pipeline.lease import claims
from pipeline.lease.acquiring import acquire
from pipeline.lease.claims import first_claim
from pipeline.lease.holder import Holder, Machine
from pipeline.lease.holding import Lease
from pipeline.probing import StoreMode
from pipeline.settings import LeaseSettings
from tests.memory_store import Create, MemoryStore, Trouble

Hook = Callable[[], object]
SETTINGS = LeaseSettings()  # 30 s, renewed every 10
CREATES: list[Create] = ["atomic", "racy", "ignored"]


def nothing() -> None:
    """The hook of a call that nothing happens to."""


@dataclass
class World:
    """A store, a clock, and what happens at certain times while somebody waits."""

    store: MemoryStore
    now_s: float = 1000.0
    dead: set[str] = field(default_factory=set)  # runs of this host whose process is gone
    at: dict[float, Callable[[], object]] = field(default_factory=dict)

    def sleep(self, seconds: float) -> None:
        end = self.now_s + seconds
        for when in sorted(when for when in self.at if when <= end):
            self.now_s = max(self.now_s, when)
            self.at.pop(when)()
        self.now_s = end

    def is_gone(self, holder: Holder) -> bool:
        return holder.run_id in self.dead

    def acquire(self, run_id: str, settings: LeaseSettings = SETTINGS, *, create: Create | None = None) -> Lease:
        mode = StoreMode(create=create or self.store.create, clock_offset_s=0.0)
        machine = Machine(clock=lambda: self.now_s, sleep=self.sleep, is_gone=self.is_gone)
        return acquire(self.store, run_id=run_id, mode=mode, settings=settings, machine=machine)

    def put_by_hand(self, key: str, text: str) -> None:
        self.store.put(key, text.encode())


@pytest.fixture(params=CREATES)
def world(request: pytest.FixtureRequest) -> World:
    return make_world(request.param)


def make_world(create: Create) -> World:
    world = World(MemoryStore(create=create))
    world.store.clock = lambda: world.now_s
    return world


def test_nobody_waits_for_an_output_that_nobody_has(world: World) -> None:
    lease = world.acquire("first")
    assert world.now_s == 1000 + (0 if world.store.create == "atomic" else SETTINGS.settle_s)
    lease.check()
    lease.release()
    began = world.now_s
    world.acquire("second").check()
    assert world.now_s - began <= SETTINGS.settle_s


def test_a_holder_whose_process_is_gone_is_taken_over_at_once(world: World) -> None:
    world.acquire("killed")
    world.dead.add("killed")
    began = world.now_s
    world.acquire("next").check()
    assert world.now_s - began <= SETTINGS.settle_s


def test_a_holder_that_is_not_heard_of_is_taken_over_when_its_own_lease_ends(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.acquire("elsewhere", LeaseSettings(lease_s=50))
    began = world.now_s
    with caplog.at_level(logging.INFO):
        world.acquire("patient").check()
    assert 50 <= world.now_s - began <= 50 + 1 + 2 * SETTINGS.settle_s
    waited = [record.message for record in caplog.records if record.message.startswith("waiting for run elsewhere (")]
    assert len(waited) == 10  # every five seconds
    assert "taken over after 50 s without a renewal" in waited[0]
    assert "taking over from run elsewhere" in caplog.text


def test_a_holder_that_renews_is_left_alone(world: World) -> None:
    holder = world.acquire("alive")
    began = world.now_s
    world.at[began + 10] = holder.renew
    with pytest.raises(LeaseHeld, match=r"/memory is held by run alive \(.*\), which lives; .*job.wait_s=SECONDS"):
        world.acquire("second")
    assert 10 <= world.now_s - began <= 11
    holder.check()


def test_who_has_time_waits_for_a_holder_to_end(world: World) -> None:
    holder = world.acquire("alive")
    began = world.now_s
    for seconds in (10, 20, 30, 40):
        world.at[began + seconds] = holder.renew
    world.at[began + 45] = holder.release
    world.acquire("patient", LeaseSettings(wait_s=60)).check()
    assert 45 <= world.now_s - began <= 46 + SETTINGS.settle_s


def test_who_has_less_time_gives_up_then(world: World) -> None:
    holder = world.acquire("alive")
    began = world.now_s
    for seconds in (10, 20, 30, 40):
        world.at[began + seconds] = holder.renew
    with pytest.raises(LeaseHeld):
        world.acquire("hurried", LeaseSettings(wait_s=25))
    assert 30 <= world.now_s - began <= 31


def interrupt(store: MemoryStore, name: str, *, before: Hook = nothing, after: Hook = nothing) -> None:
    """What happens before the store's next call of that name has its effect, or before its answer arrives."""
    real = getattr(store, name)

    def interrupted(*args: Any, **options: Any) -> Any:
        setattr(store, name, real)
        before()
        found = real(*args, **options)
        if name == "list":
            found = iter(list(found))  # it looks now, not when it is asked for the first entry
        after()
        return found

    setattr(store, name, interrupted)


def test_who_lost_the_race_for_a_free_output_meets_the_winner(world: World) -> None:
    """Both find it free; what the first does happens after the second has looked."""

    def win() -> None:
        winner = world.acquire("first")
        world.at[world.now_s + 10] = winner.renew

    interrupt(world.store, "list", after=win)
    with pytest.raises(LeaseHeld, match="held by run first"):
        world.acquire("second")
    assert world.now_s < 1020


def test_a_claim_that_arrives_two_runs_late_is_none(world: World) -> None:
    """An epoch that was free when it was looked at has come and gone since, and its claim was swept."""

    def others() -> None:
        world.acquire("second").release()
        holders.append(world.acquire("third"))
        world.at[world.now_s + 10] = holders[0].renew

    holders: list[Lease] = []
    interrupt(world.store, "put", before=others)
    with pytest.raises(LeaseHeld, match="held by run third"):
        world.acquire("first")
    holders[0].check()


def test_a_claim_whose_answer_takes_as_long_as_a_lease_is_none(world: World) -> None:
    def take_over() -> None:
        world.now_s += 40
        world.dead.add("slow")
        holders.append(world.acquire("quick"))
        world.at[world.now_s + 10] = holders[0].renew

    holders: list[Lease] = []
    interrupt(world.store, "put", after=take_over)
    with pytest.raises(LeaseHeld, match="held by run quick"):
        world.acquire("slow")
    assert holders[0].is_held


def test_a_claim_whose_answer_took_as_long_as_a_lease_is_made_anew_before_anything_is_written(world: World) -> None:
    def be_slow() -> None:
        world.now_s += 40

    interrupt(world.store, "put", after=be_slow)
    lease = world.acquire("slow")
    assert not lease.is_held
    lease.check()
    assert lease.is_held
    claim = first_claim(world.store)
    assert claim is not None
    assert claim.epoch == 2


def test_a_look_that_took_long_says_nothing_of_the_time_it_took(world: World) -> None:
    """What was read is as old as the request."""
    holder = world.acquire("alive")

    def renew() -> None:
        for _ in range(3):
            world.now_s += 10
            holder.renew()

    def wait_for_the_sign() -> None:
        interrupt(world.store, "get_part", before=lambda: interrupt(world.store, "get_part", after=renew))

    world.at[world.now_s + 0.5] = wait_for_the_sign
    with pytest.raises(LeaseHeld):
        world.acquire("second")
    assert holder.is_held


def test_a_first_look_that_took_long_counts_from_its_end(world: World) -> None:
    """The sign that it read may be as young as that."""
    holder = world.acquire("mortal")
    began = world.now_s

    def renew() -> None:
        for _ in range(2):
            world.now_s += 10
            holder.renew()

    interrupt(world.store, "get_part", before=renew)
    world.acquire("next")
    assert world.now_s >= began + 20 + 30


def test_a_renewal_that_arrives_after_the_lease_ran_out_counts_for_nothing(world: World) -> None:
    """Somebody who looked just before it arrived has taken the lease; it was begun in time."""
    slow = world.acquire("slow")
    holders: list[Lease] = []
    world.at[world.now_s + 24] = lambda: interrupt(
        world.store, "put", before=lambda: holders.append(world.acquire("quick"))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "HOLD_PART", 1.0)
        world.sleep(24)
        slow.renew()
        assert holders[0].is_held
        assert not slow.is_held


def test_where_claims_go_by_age_nobody_believes_a_second_that_is_not_over() -> None:
    """Of two claims in one second the first by name counts, even if it comes last."""
    world = make_world("racy")

    def win() -> None:
        winner = world.acquire("b")
        world.at[world.now_s + 10] = winner.renew

    interrupt(world.store, "put", before=win)
    with pytest.raises(LeaseHeld, match="held by run b"):
        world.acquire("a")


@pytest.mark.parametrize("trouble", ["repeated", "lost"])
def test_a_claim_whose_answer_was_lost(world: World, trouble: Trouble) -> None:
    """As "exists already" it is known for our own; as an error the run ends, no worse than one that was killed."""
    world.store.troubles["lease"] = trouble
    if trouble == "repeated":
        world.acquire("run").check()
        return
    with pytest.raises(StoreError, match="did not answer in time"):
        world.acquire("run")
    world.dead.add("run")
    world.acquire("next").check()


def test_a_lease_that_was_taken_over_is_lost_for_good(world: World) -> None:
    slow = world.acquire("slow")
    world.acquire("next")  # waits until slow's lease has run out
    assert not slow.is_held
    for _ in range(2):
        with pytest.raises(LeaseLost, match=r"lost, run next \(.*\) has taken it: this run writes nothing more there"):
            slow.check()
    before = dict(world.store.objects)
    slow.renew()
    slow.release()
    assert world.store.objects == before


def test_a_lease_that_ran_out_and_that_nobody_took_is_taken_again(world: World) -> None:
    lease = world.acquire("asleep")
    world.now_s += 3600
    assert not lease.is_held
    lease.check()
    assert lease.is_held
    claim = first_claim(world.store)
    assert claim is not None
    assert (claim.epoch, claim.holder.run_id) == (2, "asleep")


def test_storage_that_is_away_for_a_moment_costs_no_lease(world: World) -> None:
    lease = world.acquire("run")
    for seconds, trouble in ((10, "refused"), (5, "lost")):
        world.now_s += seconds
        world.store.troubles["lease"] = trouble  # type: ignore[assignment]
        with pytest.raises(StoreError, match="cannot write"):
            lease.renew()
        assert lease.is_held
    world.now_s += 5
    lease.renew()
    world.now_s += 24
    assert lease.is_held
    assert lease.lost is None


def test_without_storage_a_lease_runs_out_and_nothing_is_written(world: World) -> None:
    lease = world.acquire("run")
    world.store.troubles["lease"] = "refused"
    world.now_s += 26
    with pytest.raises(StoreError, match="cannot write"):
        lease.check()
    lease.check()  # storage is back, nobody came: the epoch is a new one


def test_two_that_both_created_one_claim_are_told_apart_before_much_is_written() -> None:
    """A store whose races were not seen when it was probed."""
    world = make_world("ignored")
    first = world.acquire("first", create="atomic")
    claim = first_claim(world.store)
    assert claim is not None
    text = world.store.get(claim.key).decode()
    world.put_by_hand(claim.key, text.replace('"first"', '"second"'))
    first.renew()  # happens settle_s after the claim
    with pytest.raises(LeaseLost, match="run second"):
        first.check()


def test_where_claims_go_by_age_the_holder_looks_again_before_it_writes() -> None:
    world = make_world("racy")
    lease = world.acquire("younger")
    claim = first_claim(world.store)
    assert claim is not None
    older = json.loads(world.store.get(claim.key)) | {"holder": {**vars(claim.holder), "run_id": "older"}}
    world.put_by_hand("lease/00000001.older.json", json.dumps(older))
    data, at = world.store.objects["lease/00000001.older.json"]
    world.store.objects["lease/00000001.older.json"] = (data, at - timedelta(seconds=5))
    world.now_s += SETTINGS.settle_s
    with pytest.raises(LeaseLost, match="run older"):
        lease.check()


def test_epochs_never_come_again_and_old_ones_are_swept(world: World) -> None:
    epochs = []
    for run_id in ("a", "b", "c"):
        lease = world.acquire(run_id)
        claim = first_claim(world.store)
        assert claim is not None
        epochs.append(claim.epoch)
        lease.release()
    assert epochs == [1, 2, 3]
    assert len(world.store.objects) == 2  # the last claim, and that it was given back


def test_a_damaged_lease_is_named(world: World) -> None:
    world.put_by_hand("lease/00000001.json", "{")
    with pytest.raises(StoreError, match=r"00000001.json is not a lease: .* delete /memory/lease and start again"):
        world.acquire("run")


def test_probes_are_no_leases(world: World) -> None:
    world.put_by_hand("lease/probe-0123456789abcdef", "what time is it?")
    world.acquire("run").check()
    assert "lease/probe-0123456789abcdef" in world.store.objects


@pytest.mark.parametrize("bad", [{"lease_s": 5}, {"settle_s": 0.5}, {"wait_s": -1}, {"lease_s": 0}])
def test_settings_that_cannot_work_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"job\.{next(iter(bad))}"):
        replace(SETTINGS, **bad)
