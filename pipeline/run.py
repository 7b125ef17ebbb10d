"""One `render` from its settings to its summary: read and check everything, take the output's lease, plan, drive what
is left, leave results.

A user's mistake is found before the output is touched and before Ray is started; where nothing is left to render it
never is.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version

from model.codecs.parts import MissingPackages, check_packages
from model.parts import check_weights, parts_of
from model.text import SPARE_TOKENS, build_token_counter
from model.weights import WeightReader, weights_digest
from pipeline.board import Place
from pipeline.control import Listener, check_not_paused
from pipeline.counting import counted
from pipeline.driver import Driver, Outcome, Oversight
from pipeline.errors import ConfigError, LeaseLost, StoreError
from pipeline.layout import settle, settle_before
from pipeline.lease.acquiring import acquire
from pipeline.lease.holder import new_run_id
from pipeline.lease.holding import Lease
from pipeline.ledger import Ledger, model_hash
from pipeline.log_lines import named
from pipeline.manifest.hashing import settings_hasher
from pipeline.manifest.reading import Manifest, read_manifest
from pipeline.manifest.rows import Rules
from pipeline.manifest.sources import from_anywhere
from pipeline.plan import Plan, make_plan
from pipeline.planning.history import RunTimes
from pipeline.probing import probe
from pipeline.progress import progress
from pipeline.recording import RunRecorder, check_output
from pipeline.results import RunFacts
from pipeline.room import choose_device, count_groups
from pipeline.run_log import RunLog
from pipeline.settings import RunSettings
from pipeline.shares import check_room, enlarging_share, shared_out
from pipeline.signals import Signals
from pipeline.store import Store, open_store
from pipeline.store_clients import absolute
from pipeline.summary import ENVIRONMENT, SOME_FAILED, STOPPED, SUCCESS, RunSummary, Snapshot
from pipeline.types import Clip
from pipeline.weights.opening import BUILTIN, open_weights, weights_errors

log = logging.getLogger(__name__)


def render_manifest(settings: RunSettings, *, oversight: Oversight | None = None) -> RunSummary:
    """Renders every row that has no record yet. Raises RenderError where nothing was started."""
    oversight = oversight or Oversight()
    began = time.monotonic()
    settings, reader = _checked_weights(settings)
    hashed = _model_hash(settings, reader)
    manifest = _read_manifest(settings, reader, hashed=hashed)
    settings = replace(settings, images=settings.images.below(*manifest.source.folders))
    store = open_store(settings.output, settings.storage)
    check_output(store, manifest)
    if len(_plan(settings, manifest, store).to_render):
        check_not_paused(store)
        with weights_errors(settings.weights):  # the libraries that it takes need seconds: not where nothing is left
            check_weights(settings.model, reader, tp=settings.parallel.ranks, deep=True)
    facts = _facts(settings, hashed=hashed)
    mode = probe(store)
    quick = _quick_store(settings)
    with acquire(quick, run_id=facts.run_id, mode=mode, settings=settings.lease) as lease:
        listener = Listener(quick, run_id=facts.run_id, period_s=settings.people.control_s)
        with named(facts.run_id), RunLog(quick, run_id=facts.run_id, lease=lease), listener:
            oversight = replace(oversight, wish=listener.wish)
            return _render(settings, manifest, facts=facts, lease=lease, began=began, oversight=oversight)


def _quick_store(settings: RunSettings) -> Store:
    """The output, for a renewal that is late to be none: it gives up while there is time for another try."""
    third_s = settings.lease.lease_s / 3
    limits = {name: min(getattr(settings.storage, name), third_s) for name in ("timeout_s", "retry_timeout_s")}
    return open_store(settings.output, replace(settings.storage, **limits))


def _render(
    settings: RunSettings, manifest: Manifest, *, facts: RunFacts, lease: Lease, began: float, oversight: Oversight
) -> RunSummary:
    """With the output to ourselves: only now is it known what earlier runs have left."""
    store = open_store(settings.output, settings.storage)
    plan = _plan(settings, manifest, store)
    recorder = RunRecorder(
        store,
        manifest=manifest,
        plan=plan,
        facts=facts,
        media=settings.media,
        lease=lease,
        clip_logs=settings.people.clip_logs,
        checks_files=settings.cluster.address is not None and store.is_folder,
    )
    recorder.begin()
    log.info("%s: %d done, %d to render", counted(len(manifest), "clip"), len(plan.done), len(plan.to_render))
    last: list[Snapshot] = []
    times = RunTimes(recorder, began=began)
    clips = manifest.load(plan.to_render)
    try:
        outcome = None
        if clips:
            run_id, num_done = facts.run_id, len(plan.done)
            outcome = _drive(settings, clips, times, last, run_id=run_id, num_done=num_done, oversight=oversight)
    finally:
        recorder.flush()  # nothing is under way when the lease is given back
    summary = _summary(manifest, plan, recorder, outcome, last, seconds=time.monotonic() - began)
    unwritten = _close(recorder, summary)
    summary = replace(summary, seconds=time.monotonic() - began)
    times.leave(store, facts=facts, settings=settings, last=last[0] if last else None, seconds=summary.seconds)
    if unwritten is not None and summary.exit_code in (SUCCESS, SOME_FAILED):
        summary = replace(summary, exit_code=ENVIRONMENT, stopped=unwritten)
    log.info("the run ends with %d%s", summary.exit_code, f": {summary.stopped}" if summary.stopped else "")
    return summary


def _close(recorder: RunRecorder, summary: RunSummary) -> str | None:
    """Why the results could not be written; what is done is done all the same."""
    try:
        recorder.close(stopped=summary.stopped, canceled=summary.canceled)
    except StoreError as error:
        if not isinstance(error, LeaseLost):  # whoever keeps the lease has said so
            log.error("%s", error)
        return str(error)
    return None


def _checked_weights(settings: RunSettings) -> tuple[RunSettings, WeightReader]:
    """With the group's size, where the weights decide it."""
    try:
        check_packages(settings.model)
    except MissingPackages as error:
        raise ConfigError(str(error)) from error
    reader = open_weights(settings.weights, settings.storage, parts=parts_of(settings.model))
    with weights_errors(settings.weights):
        parallel = settle_before(settings.parallel, reader, model=settings.model)
        check_weights(settings.model, reader, tp=parallel.ranks)
    return replace(settings, parallel=parallel), reader


def _model_hash(settings: RunSettings, reader: WeightReader) -> str:
    with weights_errors(settings.weights):
        return model_hash(settings.model, weights_digest(reader, parts_of(settings.model)))


def _read_manifest(settings: RunSettings, reader: WeightReader, *, hashed: str) -> Manifest:
    with weights_errors(settings.weights):
        count_tokens = build_token_counter(settings.model, reader)
    return read_manifest(
        settings.manifest,
        storage=settings.storage,
        rules=Rules(
            model=settings.model,
            count_tokens=count_tokens,
            spare_tokens=SPARE_TOKENS,
            truncate_text=settings.truncate_text,
        ),
        hash_clip=settings_hasher(model_hash=hashed, media=settings.media),
        selection=settings.selection,
        access=settings.images,
        findings=settings.findings,
    )


def _plan(settings: RunSettings, manifest: Manifest, store: Store) -> Plan:
    ledger = Ledger(store)
    failed = () if settings.retry.failed else ledger.failed_keys()
    return make_plan(manifest.index, ledger.done_keys(), failed=failed, retry_failed=settings.retry.failed)


def _facts(settings: RunSettings, *, hashed: str) -> RunFacts:
    """Places are written down so that an audit finds them from any folder."""
    now = datetime.now(UTC)
    settings = replace(
        settings,
        manifest=from_anywhere(settings.manifest, storage=settings.storage),
        output=absolute(settings.output),
        weights=settings.weights if settings.weights == BUILTIN else absolute(settings.weights),
    )
    return RunFacts(
        run_id=new_run_id(now),
        manifest=settings.manifest,
        output=settings.output,
        model=settings.model.name,
        model_hash=hashed,
        started_at=now,
        ended_at=None,
        settings=asdict(settings),
        versions={name: version(name) for name in ("happyhorse", "torch", "ray", "imageio-ffmpeg")},
    )


def _drive(
    settings: RunSettings,
    clips: Sequence[Clip],
    recorder: RunTimes,
    last: list[Snapshot],
    *,
    run_id: str,
    num_done: int,
    oversight: Oversight,
) -> Outcome:
    from pipeline import cluster  # Ray takes half a second to import; a run with nothing to do never needs it
    from pipeline.crews.ray_fleet import RayFleet
    from pipeline.worker import Workplace

    signals = Signals(oversight.stop)
    enlarging = enlarging_share(settings.model, clips, placing=settings.placing)
    kinds = 2 if enlarging else 1
    with signals.caught(), cluster.connect(settings.cluster, parallel=settings.parallel, kinds=kinds):
        signals.listen()  # Ray has put a handler of its own in the place of ours
        nodes = cluster.node_resources()
        device = choose_device(settings.cluster, nodes)
        place = Workplace(
            model=settings.model,
            weights=settings.weights,
            output=settings.output,
            storage=settings.storage,
            media=settings.media,
            threads=settings.parallel.threads_per_rank,
            device=device,
            images=any(clip.image is not None for clip in clips),
            sounds=any(clip.audio_in is not None for clip in clips),
            input_access=settings.images,
            run_id=run_id,
            keep_embeddings=settings.cluster.keep_embeddings,
            placing=settings.placing,
        )
        shapes = {clip.shape for clip in clips}
        parallel = settle(
            settings.parallel,
            model=settings.model,
            shapes=shapes,
            device=device,
            nodes=nodes,
            placing=settings.placing,
        )
        placing = settings.placing
        every = replace(parallel, groups=None)
        fits = count_groups(every, settings.cluster, device=device, nodes=nodes, placing=placing, least=kinds)
        groups = shared_out(fits, parallel, enlarging=enlarging)
        if device == "cuda" and not settings.cluster.grows:
            check_room(groups, fits)
        num_large = sum(clip.shape.first_latent is not None for clip in clips)
        used = {"render": min(groups["render"], len(clips)), "enlarge": min(groups.get("enlarge", 0), num_large)}
        own = settings.cluster.address is None
        recorder.placed(device=device, nodes=nodes, groups=used, tp=parallel.ranks, own=own)
        fleet = RayFleet(place, cluster=settings.cluster, parallel=parallel, groups=groups, enlarging=enlarging)
        with progress() as show:

            def observe(snapshot: Snapshot) -> None:
                last[:] = [snapshot]
                show(snapshot)
                recorder.refresh(snapshot)
                oversight.observe(snapshot)

            return Driver(
                clips,
                fleet=fleet,
                recorder=recorder,
                cluster=settings.cluster,
                retry=settings.retry,
                num_done=num_done,
                oversight=replace(oversight, observe=observe),
            ).run()


def _summary(
    manifest: Manifest,
    plan: Plan,
    recorder: RunRecorder,
    outcome: Outcome | None,
    last: list[Snapshot],
    *,
    seconds: float,
) -> RunSummary:
    failed = recorder.outcomes.failures()
    num_rendered = outcome.board.count(Place.SUCCEEDED) if outcome else 0
    num_pending = len(plan.to_render) - num_rendered - (outcome.board.count(Place.FAILED) if outcome else 0)
    exit_code = SOME_FAILED if failed else SUCCESS
    stopped = outcome.stopped if outcome else None
    if outcome and outcome.exit_code is not None:
        if outcome.exit_code != STOPPED or num_pending:
            exit_code = outcome.exit_code
        else:
            stopped = None  # the signal came when nothing was left to do
    return RunSummary(
        exit_code=exit_code,
        num_clips=len(manifest),
        num_done_before=len(plan.done),
        num_rendered=num_rendered,
        failed=failed,
        num_pending=num_pending,
        seconds=seconds,
        clips_per_hour=last[0].clips_per_hour if last else None,
        stopped=stopped,
        canceled=bool(outcome and outcome.canceled and num_pending),
    )
