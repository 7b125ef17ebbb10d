"""Makes a run's outcome durable: a record or a failure for each clip, and now and then the results that people read.

Before each write it looks whether the run still has the output: LeaseLost, a StoreError, if another one has taken it.
Results are written in the background while the run lasts, so that no group waits for them; the last ones are not.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

from pipeline.clip_logs import ClipLogs
from pipeline.errors import ConfigError, LeaseLost, ManifestError, StoreError
from pipeline.lease.holding import Lease
from pipeline.ledger import ClipRecord, Ledger, deciding_values, record_key
from pipeline.manifest.reading import Manifest
from pipeline.manifest.tables import RESULTS
from pipeline.outcomes import Outcomes, delivery_of
from pipeline.plan import Plan
from pipeline.publication import check_seen
from pipeline.results import Moment, RunFacts, write_results, write_run
from pipeline.store import Store
from pipeline.summary import Snapshot
from pipeline.types import Clip, ClipFailure, Finished, MediaSettings

TEXTS = ("prompt", "negative_prompt")
SUCCESS_KEY = "_SUCCESS.json"
RESULTS_PERIOD_S = 60.0
TURN_PERIOD_S = 5.0  # from one change of what a run does to `run.json` that says so
log = logging.getLogger(__name__)


def check_output(store: Store, manifest: Manifest) -> None:
    """ConfigError for an output whose results would replace the manifest."""
    results = store.where(RESULTS)
    if manifest.is_read_from(results):
        reason = "is read as the manifest and would be replaced by this run's results"
        raise ConfigError(f"{results} {reason}, expected another output or another name for the manifest")


class RunRecorder:
    """The `Recorder` of a real run, over its output."""

    def __init__(
        self,
        store: Store,
        *,
        manifest: Manifest,
        plan: Plan,
        facts: RunFacts,
        media: MediaSettings,
        lease: Lease,
        clip_logs: bool = False,
        checks_files: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.manifest, self.plan, self.facts = store, manifest, plan, facts
        self.media, self.lease = media, lease
        self.ledger = Ledger(store)
        self.outcomes = Outcomes(manifest.index)
        self._clip_logs = ClipLogs(store, run_id=facts.run_id, lease=lease) if clip_logs else None
        self._checks_files = checks_files  # of workers that may have another disk than ours
        self._clock = clock
        self._written_at = self._said_at = clock()
        self._turn: object = None  # what the run did when it last said so
        self._last = Moment()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="results")
        self._writing: Future[None] | None = None

    def begin(self) -> None:
        """Knows again what earlier runs left. An output that has work left is no success any more.

        The first results are written here: an output that takes none is found before anything is started.
        """
        index, done = self.manifest.index, self.plan.done.tolist()
        keys = (record_key(index.clip_id(position), index.settings_hash(position)) for position in done)
        for position, record in zip(done, self.ledger.read_records(keys), strict=True):
            self.outcomes.succeed(position, delivery_of(record))
        for position in self.plan.given_up.tolist():
            self.outcomes.fail(position, "gave up in an earlier run (retry.failed=true tries again)")
        if len(self.plan.to_render) or len(self.plan.given_up):
            self.lease.check()
            self.store.delete(SUCCESS_KEY)
            self._write(self.outcomes, self.facts, Moment())

    def record(self, clip: Clip, *, finished: Finished, num_attempts: int, seconds: dict[str, float]) -> None:
        row = self.manifest.row(clip)
        record = ClipRecord(
            clip_id=clip.clip_id,
            settings_hash=self.manifest.settings_hash(clip),
            seed=clip.seed,
            model=self.facts.model,
            model_hash=self.facts.model_hash,
            finished=finished,
            num_attempts=num_attempts,
            seconds=seconds,
            settings=deciding_values(clip, model_hash=self.facts.model_hash, media=self.media),
            row=row,
            truncated=tuple(name for name in TEXTS if row.get(name) not in (None, getattr(clip, name))),
        )
        self.lease.check()
        if self._checks_files:
            check_seen(self.store, finished.files)
        if not self.ledger.record(record):
            log.warning("clip %s was recorded by somebody else; attempt %s is void", clip.clip_id, finished.attempt)
            record = self.ledger.read_record(record.key)
        self.outcomes.succeed(self.manifest.index.position(clip.row), delivery_of(record))

    def fail(self, clip: Clip, *, failures: Sequence[ClipFailure]) -> None:
        newest = failures[-1]
        self.outcomes.fail(self.manifest.index.position(clip.row), f"{newest.stage}: {newest.message}")
        hashed = self.manifest.settings_hash(clip)
        self.lease.check()
        self.ledger.fail(clip.clip_id, settings_hash=hashed, failures=failures, row=self.manifest.row(clip))

    def log(self, clip: Clip, *, attempt: str, lines: Sequence[str]) -> None:
        """What an attempt that ended has gone through. Returns at once; one that cannot be written is only missed."""
        if self._clip_logs is not None:
            self._clip_logs.write(clip.clip_id, attempt=attempt, lines=lines)

    def refresh(self, snapshot: Snapshot) -> None:
        """Rewrites the results if the last time is long enough ago, `run.json` too when the run takes a turn.

        Storage's refusal is no reason to stop: not yet. LeaseLost as soon as that is known, so that a run that may
        record nothing more renders nothing more.
        """
        if self.lease.lost is not None:
            raise LeaseLost(self.lease.lost)
        self._last = Moment.of(snapshot)
        now, turn = self._clock(), _turn(snapshot)
        is_due = now - self._written_at >= RESULTS_PERIOD_S
        has_turned = turn != self._turn and now - self._said_at >= TURN_PERIOD_S
        if not (is_due or has_turned) or (self._writing and not self._writing.done()):
            return
        self.flush()
        self._said_at, self._turn = now, turn
        self._written_at = now if is_due else self._written_at
        write = self._write if is_due else self._write_run
        self._writing = self._writer.submit(write, self.outcomes.snapshot(snapshot.in_flight), self.facts, self._last)

    def close(self, *, stopped: str | None = None, canceled: bool = False) -> None:
        """The last results, and the mark of success when every row has a record. `stopped`: why work is left."""
        self.flush()
        self._writer.shutdown()
        if self._clip_logs is not None:
            self._clip_logs.close()
        ended = datetime.now(UTC)
        if canceled:
            self.outcomes.cancel()
        last = Moment(clips_per_hour=self._last.clips_per_hour, stopped=stopped)
        self._write(self.outcomes, replace(self.facts, ended_at=ended), last)
        if self.outcomes.counts()["SUCCEEDED"] == len(self.manifest):
            values = {"run_id": self.facts.run_id, "num_clips": len(self.manifest), "at": ended.isoformat()}
            selection = self.manifest.selection.values
            values |= {"selection": selection} if selection else {}
            self.lease.check()
            self.store.put(SUCCESS_KEY, json.dumps(values, ensure_ascii=False, indent=1).encode() + b"\n")

    def _write(self, outcomes: Outcomes, facts: RunFacts, moment: Moment) -> None:
        self.lease.check()
        write_results(self.store, self.manifest, outcomes)
        write_run(self.store, facts, outcomes, moment)

    def _write_run(self, outcomes: Outcomes, facts: RunFacts, moment: Moment) -> None:
        self.lease.check()
        write_run(self.store, facts, outcomes, moment)

    def flush(self) -> None:
        """Waits for results that are being written. That they could not be is a warning: the next ones may be."""
        if self._writing is not None:
            try:
                self._writing.result()
            except (StoreError, ManifestError) as error:
                log.warning("the results could not be rewritten: %s", error)
            self._writing = None


def _turn(snapshot: Snapshot) -> object:
    """Changes when a run does something else than before: it begins, pauses, goes on, stops."""
    is_working = any(group.state in ("ready", "busy") for group in snapshot.groups)
    return is_working, snapshot.paused, snapshot.stopping
