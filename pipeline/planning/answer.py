"""`plan`: reads and checks the manifest as `render` does, and says what is left. Without weights where there are none.

Nothing is written and nothing is started.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model.codecs.parts import TEXT
from model.config import ModelConfig
from model.parts import check_weights, parts_of, tp_of
from model.text import SPARE_TOKENS, build_token_counter
from model.weights import LocalWeights, WeightReader, weights_digest
from pipeline.errors import ConfigError
from pipeline.inputs.access import InputAccess
from pipeline.ledger import Ledger, model_hash
from pipeline.manifest.hashing import settings_hasher
from pipeline.manifest.reading import Manifest, read_manifest
from pipeline.manifest.rows import Rules
from pipeline.manifest.selection import EVERYTHING, Selection
from pipeline.manifest.sources import find_files
from pipeline.plan import Plan, make_plan
from pipeline.planning.estimate import Estimate, estimate
from pipeline.planning.history import RunHistory, read_history
from pipeline.planning.planned import PlannedClips, planned_clips
from pipeline.planning.target import Target, check_target
from pipeline.settings import check_stages
from pipeline.store import StorageSettings, open_store
from pipeline.types import MediaSettings
from pipeline.weights.opening import BUILTIN, open_weights, weights_errors

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """One `plan`. The first three decide what can be known; see `read_plan`."""

    manifest: str
    output: str | None  # None: every clip is to be rendered
    weights: str | None  # None: those in the package for the foal, else none
    tokenizer: str | None  # a folder with tokenizer.json, where there are no weights
    model: ModelConfig
    media: MediaSettings
    storage: StorageSettings
    images: InputAccess = field(default_factory=InputAccess)
    retry_failed: bool = True
    truncate_text: bool = False
    selection: Selection = EVERYTHING
    findings: str | None = None
    target: Target = field(default_factory=Target)


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What is to be done, and how long it will take. `notes`: what was taken for granted."""

    manifest: Manifest
    plan: Plan
    planned: PlannedClips
    given_up: int
    model_hash: str | None
    estimate: Estimate
    notes: tuple[str, ...]


def read_plan(settings: PlanSettings, *, elsewhere: Sequence[RunHistory] = ()) -> RunPlan:
    """ManifestError with all findings, as `render`; ConfigError or WeightsError for what does not go together.

    `elsewhere`: runs into other outputs, whose times count as well.
    """
    check_stages(settings.model, settings.target.placing)
    check_target(settings.model, settings.target)
    find_files(
        settings.manifest, storage=settings.storage
    )  # a wrong name is said before what the output's storage says
    reader = _weights(settings)
    store = open_store(settings.output, settings.storage) if settings.output is not None else None
    own = read_history(store) if store else []
    known = {run.run_id: run for run in (*elsewhere, *own) if run.model == settings.model.name}
    history = [known[run_id] for run_id in sorted(known, reverse=True)]  # newest first
    hashed, notes = _model_hash(settings, reader, [run for run in history if run in own])
    count_tokens, is_exact = _token_counter(settings, reader)
    if not is_exact:
        most = settings.model.text_max_tokens
        guess = f"prompts' tokens are guessed from their bytes, and whether one has more than {most} is not checked"
        notes = (*notes, f"{guess}: weights=... or tokenizer=... counts them")
    manifest = read_manifest(
        settings.manifest,
        storage=settings.storage,
        rules=Rules(
            model=settings.model,
            count_tokens=count_tokens,
            spare_tokens=SPARE_TOKENS,
            truncate_text=settings.truncate_text,
        ),
        hash_clip=settings_hasher(model_hash=hashed or "", media=settings.media),
        selection=settings.selection,
        access=settings.images,
        findings=settings.findings,
    )
    ledger = Ledger(store) if store is not None and hashed is not None else None
    failed = ledger.failed_keys() if ledger is not None and not settings.retry_failed else ()
    plan: Plan = make_plan(
        manifest.index,
        ledger.done_keys() if ledger is not None else (),
        failed=failed,
        retry_failed=settings.retry_failed,
    )
    planned = planned_clips(
        manifest.index,
        settings.model,
        done=plan.done,
        skipped=plan.given_up,
        negative_tokens=count_tokens(settings.model.sampling.negative_prompt) if settings.model.is_guided else 0,
    )
    same = [run for run in history if hashed is None or run.model_hash == hashed]
    return RunPlan(
        manifest=manifest,
        plan=plan,
        planned=planned,
        given_up=len(plan.given_up),
        model_hash=hashed,
        estimate=estimate(planned, same or history, settings.target),
        notes=notes,
    )


def _weights(settings: PlanSettings) -> WeightReader | None:
    """None where a released model is planned without them."""
    where = settings.weights or (BUILTIN if settings.model.codecs.text == "foal" else None)
    if where is None:
        return None
    reader = open_weights(where, settings.storage, parts=parts_of(settings.model))
    with weights_errors(where):
        check_weights(settings.model, reader, tp=tp_of(reader))
    return reader


def _model_hash(
    settings: PlanSettings, reader: WeightReader | None, history: list[RunHistory]
) -> tuple[str | None, tuple[str, ...]]:
    """Without weights those of the output's last run are assumed; None: what is done cannot be known."""
    if reader is not None:
        with weights_errors(settings.weights or BUILTIN):
            return model_hash(settings.model, weights_digest(reader, parts_of(settings.model))), ()
    if settings.output is None:
        return None, ()
    if history:
        newest = history[0]
        return newest.model_hash, (f"without weights=... those of run {newest.run_id} are assumed",)
    return None, ("without weights=... or an earlier run it is not known which clips are done: all are counted",)


def _token_counter(settings: PlanSettings, reader: WeightReader | None) -> tuple[Callable[[str], int], bool]:
    """And whether it counts as the model does."""
    if reader is None and settings.tokenizer is not None:
        reader = _tokenizer_folder(settings.tokenizer)
    if reader is not None:
        with weights_errors(settings.tokenizer or settings.weights or BUILTIN):
            return build_token_counter(settings.model, reader), True
    most = settings.model.text_max_tokens
    return lambda prompt: min(len(prompt.encode()) // 4 + SPARE_TOKENS, most), False


def _tokenizer_folder(given: str) -> WeightReader:
    """As a weights root: the folder, or the one above it."""
    folder = Path(given).expanduser()
    for root in (folder, folder.parent):
        if (root / TEXT / "tokenizer.json").is_file():
            return LocalWeights(root)
    raise ConfigError(f"tokenizer: {given} holds no {TEXT}/tokenizer.json and is no such folder")
