"""Exactly once, under any schedule: real driver, board, recorder, ledger and lease over a store in memory.

Runs of one output are held up and killed at every call of storage, groups and finishers die, answers come late, twice
or not at all. Whatever happened: a record's files are there, a record never changes, the next run finishes the work.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from pipeline.driver import Driver, Oversight, StopSignal
from pipeline.driver import Outcome as Driven
from pipeline.errors import LeaseHeld, StoreError
from pipeline.fleet import Done, Event, FinishOrder, Refused
from pipeline.lease.acquiring import acquire
from pipeline.lease.holder import Machine
from pipeline.ledger import FAILED, RECORDS, Ledger
from pipeline.manifest.reading import Manifest
from pipeline.plan import Plan, make_plan
from pipeline.recording import SUCCESS_KEY, RunRecorder
from pipeline.results import RunFacts
from pipeline.settings import ClusterSettings, RetrySettings
from pipeline.summary import Snapshot
from pipeline.types import ClipFailure
from tests.clips import MEDIA
from tests.fakes import FakeFleet, Fault, finished
from tests.interleaving import Process, pause
from tests.manifests import read, write
from tests.memory_store import Create, MemoryStore
from tests.schedules import SETTINGS, TICK_S, Run, Schedule

NUM_CLIPS = 4
OWNED = (f"{RECORDS}/", f"{FAILED}/", "results.parquet")  # what the holder of the lease alone may write
TURN_S = 3.0  # of the driver: a run takes longer than a lease, and longer than anybody stands still
MOST_TICKS = 800  # of a run that is left alone
CLUSTER, RETRY = ClusterSettings(stop_grace_s=5), RetrySettings()
FACTS = RunFacts(
    run_id="run",
    manifest="m.parquet",
    output="/memory",
    model="small",
    model_hash="m" * 16,
    started_at=datetime(2026, 11, 20, tzinfo=UTC),
    ended_at=None,
    settings={},
    versions={},
)
FAULTS = st.lists(
    st.one_of(
        st.builds(Fault, stage=st.just("render"), nth=st.integers(0, 3), what=st.sampled_from(["lose", "inputs"])),
        st.builds(
            Fault,
            stage=st.just("finish"),
            nth=st.integers(0, 3),
            what=st.sampled_from(["lose", "refuse", "trip", "inputs", "store"]),
        ),
    ),
    max_size=3,
)


@dataclass
class Crews(FakeFleet):
    """A fleet whose finishers upload, and whose answers may come late and twice: those of the dead as well."""

    store: MemoryStore = field(kw_only=True)
    sleep: Callable[[float], None] = field(kw_only=True)
    said: list[Done] = field(default_factory=list)

    def wait(self, timeout_s: float, /) -> list[Event]:
        self.sleep(TURN_S)
        pause(at="turn")
        orders = {crew_id: crew.order for crew_id, crew in self._crews.items()}
        events: list[Event] = []
        for event in super().wait(1000.0):  # to the next event
            order = orders[event.crew_id]
            if isinstance(order, FinishOrder):
                event = self._finish(event, order)
            events.append(event)
        return [*self.said, *events]

    def _finish(self, event: Event, order: FinishOrder) -> Event:
        answer = Done(crew_id=event.crew_id, result=finished(order), seconds=1.0)
        if isinstance(event, Refused):
            return event
        try:
            self.store.put(
                finished(order).files["mp4"].name, order.latents if isinstance(order.latents, bytes) else b""
            )
        except StoreError as error:
            failure = ClipFailure(stage="finish", kind="StoreError", message=str(error), retriable=False)
            return Refused(crew_id=event.crew_id, failure=failure)
        self.said.append(answer)  # from the next turn on, again and again
        return answer if isinstance(event, Done) else event


@dataclass
class Render(Run):
    """A whole `render`, from the lease to the last results."""

    manifest: Manifest = field(kw_only=True)
    faults: Sequence[Fault] = field(kw_only=True)
    signal: StopSignal = field(default_factory=StopSignal)
    plan: Plan | None = None
    driven: Driven | None = None
    recorder: RunRecorder | None = None
    is_closed: bool = False

    def leave(self) -> None:
        self.signal.count += 1

    def work(self, schedule: "Renders") -> None:
        store = schedule.store
        try:
            self.lease = acquire(
                store, run_id=self.run_id, mode=schedule.mode, settings=self.settings, machine=schedule.machine
            )
            try:
                self._render(store, schedule.machine)
            finally:
                self.lease.release()
        except (LeaseHeld, StoreError):
            pass

    def _render(self, store: MemoryStore, machine: Machine) -> None:
        ledger = Ledger(store)
        self.plan = plan = make_plan(self.manifest.index, ledger.done_keys())
        facts = replace(FACTS, run_id=self.run_id)
        assert self.lease is not None
        self.recorder = RunRecorder(
            store, manifest=self.manifest, plan=plan, facts=facts, media=MEDIA, lease=self.lease, clock=lambda: 0.0
        )
        self.recorder.begin()
        fleet = Crews(store=store, sleep=machine.sleep, faults=self.faults)
        self.driven = Driver(
            self.manifest.load(plan.to_render),
            fleet=fleet,
            recorder=self.recorder,
            cluster=CLUSTER,
            retry=RETRY,
            oversight=Oversight(stop=self.signal, observe=self._observer(machine.clock)),
            clock=fleet.clock,
        ).run()
        self.recorder.close()
        self.is_closed = True

    def _observer(self, clock: Callable[[], float]) -> Callable[[Snapshot], None]:
        """What the thread of a real lease does, in the turns of the driver."""
        renewed_at = clock()

        def observe(snapshot: Snapshot) -> None:
            nonlocal renewed_at
            assert self.lease is not None
            assert self.recorder is not None
            if clock() >= renewed_at + SETTINGS.lease_s / 3:
                renewed_at = clock()
                with suppress(StoreError):
                    self.lease.renew()
            self.recorder.refresh(snapshot)

        return observe


class Renders(Schedule[Render]):
    folders = ("lease", "clips", RECORDS, FAILED)
    others = ("turn", "results.parquet")
    manifest: ClassVar[Manifest]

    def set_up(self) -> None:
        self.records: dict[str, bytes] = {}  # as they were seen last
        self.strays: set[str] = set()  # keys that were written by somebody who was not the holder any more
        self.store.asked = self.only_the_holder_writes
        self.store.written = self.note_strays

    def only_the_holder_writes(self, key: str) -> None:
        if key.startswith(OWNED):
            assert self._writer_may_write(), f"{key} is written by somebody who has no lease"

    def note_strays(self, key: str) -> None:
        """Nobody can help it: a write was asked for in time and took longer than the lease."""
        if key.startswith(OWNED) and not self._writer_may_write():
            self.strays.add(key)

    def _writer_may_write(self) -> bool:
        """False for a write of the dead, which arrives while nobody runs."""
        return any(run.may_write for run in self.runs if run.process is threading.current_thread())

    def start(self, data: st.DataObject | None) -> None:
        drawn = st.tuples(st.booleans(), st.booleans(), FAULTS)
        is_here, is_patient, faults = (True, False, []) if data is None else data.draw(drawn)
        run = Render(f"run-{len(self.runs)}", is_here, is_patient, manifest=self.manifest, faults=faults)
        run.process = Process(lambda: run.work(self))
        self.runs.append(run)

    @invariant()
    def a_record_has_its_files_and_never_changes(self) -> None:
        for key, data in self._below(RECORDS).items():
            if self.records.get(key) == data:
                continue
            may_change = self.store.create != "atomic" and key in self.strays
            assert key not in self.records or may_change, f"{key} has changed"
            self.records[key] = data
            self._check_files(key)

    @invariant()
    def a_clip_has_one_record_and_success_means_all(self) -> None:
        clip_ids = [key.split("/")[1].split(".")[0] for key in self._below(RECORDS)]
        assert len(set(clip_ids)) == len(clip_ids)
        if SUCCESS_KEY in self.store.objects:
            assert len(clip_ids) == NUM_CLIPS

    @invariant()
    def totals_are_right(self) -> None:
        for run in self.runs:
            if run.is_closed:
                self._check_totals(run)

    def teardown(self) -> None:
        """Somebody runs the same command again, and again."""
        self.end_all()
        for late in list(self.store.late):
            self.store.land(late)
            self.a_record_has_its_files_and_never_changes()
        last = self._run_alone()
        assert last.recorder is not None
        assert len(self._below(RECORDS)) == NUM_CLIPS
        assert SUCCESS_KEY in self.store.objects
        for key in self._below(RECORDS):
            self._check_files(key)
        self._check_results()
        again, before = self._run_alone(), self._below(RECORDS)
        assert again.plan is not None
        assert not len(again.plan.to_render)
        assert self._below(RECORDS) == before

    def _run_alone(self) -> Render:
        self.start(None)
        run = self.runs[-1]
        for _ in range(MOST_TICKS):
            if run.process.is_over:
                break
            self.now_s += TICK_S
            run.process.run_on(self.now_s)
        assert run.is_closed
        assert run.driven is not None
        assert run.driven.exit_code is None
        self._check_totals(run)
        return run

    def _below(self, folder: str) -> dict[str, bytes]:
        return {key: data for key, (data, _) in self.store.objects.items() if key.startswith(f"{folder}/")}

    def _check_files(self, key: str) -> None:
        for file in Ledger(self.store).read_record(key).finished.files.values():
            data = self.store.get(file.name)
            assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size_bytes, file.sha256)

    def _check_totals(self, run: Render) -> None:
        """What a run says became of its clips did become of them."""
        assert run.plan is not None
        assert run.driven is not None
        assert run.recorder is not None
        tracks = run.driven.board.tracks
        assert len(run.plan.done) + len(tracks) == NUM_CLIPS
        recorded = {key.split("/")[1] for key in self._below(RECORDS)}
        outcomes, everything = run.recorder.outcomes, slice(0, NUM_CLIPS)
        states, attempts = outcomes.states(everything).to_pylist(), outcomes.attempts(everything)
        for clip_id, track in tracks.items():
            name = f"{clip_id}.{self.manifest.settings_hash(track.clip)}.json"
            state = states[track.clip.row]
            if track.place.name == "SUCCEEDED":
                assert state == "SUCCEEDED"
                standing = Ledger(self.store).read_record(f"{RECORDS}/{name}").finished.attempt
                assert attempts[track.clip.row] == standing or self.store.create != "atomic"
            elif track.place.name == "FAILED":
                assert state == "FAILED"
                assert name in recorded or f"{FAILED}/{name}" in self.store.objects or run.driven.stopped
            else:
                assert run.driven.stopped

    def _check_results(self) -> None:
        """The table that people read names the files of the records that stand."""
        table = pq.read_table(pa.BufferReader(self.store.get("results.parquet"))).to_pylist()
        for row in table:
            assert row["render_state"] == "SUCCEEDED"
            assert Ledger(self.store).read_record(row["render_record"]).finished.attempt == row["render_attempt"]
        assert len(table) == NUM_CLIPS


@pytest.fixture(scope="module", autouse=True)
def manifest(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = {"clip_id": [f"clip-{n}" for n in range(NUM_CLIPS)], "prompt": [f"prompt {n % 2}" for n in range(NUM_CLIPS)]}
    Renders.manifest = read(write(tmp_path_factory.mktemp("once"), rows))


@pytest.mark.parametrize("create", ["atomic", "racy", "ignored"])
def test_a_record_that_arrives_when_another_run_has_made_the_clip(create: Create) -> None:
    """Where create-only holds it comes too late; elsewhere it replaces the record, and its files are there as well."""
    schedule = stopped_at_its_first_record(create)
    slow, key = schedule.runs[0], schedule.runs[0].process.at
    schedule.start(None)
    schedule.go_on(MOST_TICKS * TICK_S, without=slow)
    assert schedule.runs[1].is_closed
    before = schedule.store.objects[key]
    slow.process.run_on(schedule.now_s)
    assert slow.process.is_over
    assert (schedule.store.objects[key] == before) == (create != "ignored")
    schedule.a_record_has_its_files_and_never_changes()
    schedule.totals_are_right()
    schedule.teardown()


@pytest.mark.parametrize("create", ["atomic", "racy"])
def test_a_record_that_arrives_while_another_run_makes_the_clip_stands(create: Create) -> None:
    schedule = stopped_at_its_first_record(create)
    slow, key = schedule.runs[0], schedule.runs[0].process.at
    schedule.start(None)
    quick = schedule.runs[1]
    schedule.go_on(60, without=slow, stops=quick, at="clips/")
    slow.process.run_on(schedule.now_s)
    standing = schedule.store.objects[key]
    schedule.go_on(MOST_TICKS * TICK_S)
    assert quick.is_closed
    assert schedule.store.objects[key] == standing
    schedule.totals_are_right()
    schedule.teardown()


def stopped_at_its_first_record(create: Create) -> Renders:
    schedule = Renders()
    schedule.begin(create=create)
    schedule.start(None)
    schedule.go_on(60, stops=schedule.runs[0], at=RECORDS)
    return schedule


TestOnce = Renders.TestCase
# Shrinking takes minutes; to look for the shortest schedule take the phases away.
TestOnce.settings = settings(max_examples=100, stateful_step_count=8, phases=[Phase.generate])
