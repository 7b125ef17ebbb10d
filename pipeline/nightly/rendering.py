"""The renderer of a real nightly: plans and renders one manifest after the other, and remembers how long each took.

Every manifest has an output of its own, so each run's times are copied beside the nightly's other notes: an estimate of
a new manifest needs what others took.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

from pipeline.driver import Oversight, StopSignal
from pipeline.errors import ManifestError
from pipeline.lease.holder import new_run_id
from pipeline.manifest.index import RowIndex
from pipeline.nightly.agenda import Work
from pipeline.nightly.inbox import REJECTED, TABLE, Found
from pipeline.nightly.renderer import Look, Rendered
from pipeline.nightly.settings import NightlySettings
from pipeline.planning.answer import PlanSettings, RunPlan, read_plan
from pipeline.planning.history import HISTORY, RunHistory, read_history, to_json
from pipeline.run import render_manifest
from pipeline.store import Store, open_store
from pipeline.summary import Snapshot

CHUNK = 1 << 16


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float, /) -> None:
        time.sleep(seconds)


class ManifestRenderer:
    """`notes`: the nightly's own folder."""

    def __init__(self, settings: NightlySettings, *, notes: Store) -> None:
        self._settings, self._notes = settings, notes
        self._history: list[RunHistory] | None = None

    def look(self, found: Found, /) -> Look:
        try:
            return _look(self.plan(found), found, self._cards)
        except ManifestError as error:
            if error.more:  # not all are in the error: once more, with the file that gets every one
                self.plan(found, findings=f"{self._settings.output}/{REJECTED}/{found.name}/{TABLE}")
            raise

    def plan(self, found: Found, *, findings: str | None = None) -> RunPlan:
        if self._history is None:
            self._history = read_history(self._notes)
        return read_plan(replace(self._plan_settings(found), findings=findings), elsewhere=self._history)

    def render(self, found: Found, /, *, stop: StopSignal, observe: Callable[[Snapshot], None]) -> Rendered:
        settings = replace(self._settings.render, manifest=found.address, output=self._output(found))
        began = new_run_id(datetime.now(UTC)).rpartition("-")[0]
        summary = render_manifest(settings, oversight=Oversight(stop=stop, observe=observe))
        newest = next(iter(read_history(open_store(settings.output, settings.storage))), None)
        if newest is None or newest.run_id < began:
            return Rendered(summary=summary, gpus=None)
        self._history = [newest, *(self._history or [])]
        self._notes.put(f"{HISTORY}/{newest.run_id}.json", to_json(newest))
        return Rendered(summary=summary, gpus=newest.cards)

    @property
    def _cards(self) -> int:
        """Of a run with a group of each kind, as far as that is known before it is started; on CPUs one's ranks."""
        target, ranks = self._settings.target, self._settings.render.parallel.ranks
        if self._settings.render.cluster.device == "cpu":
            return ranks
        kinds = 2 if target.placing.stages == "apart" else 1
        return target.gpus or sum(target.wants(ranks=ranks).cards(kinds).values())

    def _output(self, found: Found) -> str:
        return f"{self._settings.output}/{found.name}"

    def _plan_settings(self, found: Found) -> PlanSettings:
        render = self._settings.render
        return PlanSettings(
            manifest=found.address,
            output=self._output(found),
            weights=render.weights,
            tokenizer=None,
            model=render.model,
            media=render.media,
            storage=render.storage,
            images=render.images,
            retry_failed=render.retry.failed,
            truncate_text=render.truncate_text,
            target=self._settings.target,
        )


def _look(found: RunPlan, file: Found, cards: int) -> Look:
    index, plan, estimate = found.manifest.index, found.plan, found.estimate
    left = found.planned.left
    flops = [found.planned.flops(each).total for each in left]
    longest = max(flops, default=0) * found.planned.to_render / (found.planned.total_flops or 1)
    work = Work(
        name=file.name,
        priority=int(index.priorities[plan.to_render].max()) if len(plan.to_render) else 0,
        since=file.written_at,
        seconds=estimate.seconds,
        startup_s=estimate.startup_s,
        clip_s=estimate.a_clip_s * longest if estimate.a_clip_s is not None else None,
        gpus=estimate.gpus or (estimate.groups * (estimate.tp or 0) if estimate.seconds is not None else 0) or cards,
    )
    return Look(
        num_clips=len(index),
        num_left=len(plan.to_render),
        failed=tuple(index.clip_id(n) for n in plan.given_up.tolist()),
        digest=_digest(index),
        work=work,
    )


def _digest(index: RowIndex) -> str:
    """Of all ids and settings hashes, in the manifest's order."""
    found = sha256(index.hashes.tobytes())
    for start in range(0, len(index), CHUNK):
        ids: Sequence[str] = index.ids[start : start + CHUNK].to_pylist()
        found.update("\n".join(ids).encode())
    return found.hexdigest()[:12]
