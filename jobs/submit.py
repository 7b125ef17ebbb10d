"""`happyhorse submit manifest=X output=Y cluster=ray|kuberay`: a render that goes on when this machine is switched off.

Exit 0 submitted, or there already; 2 nothing was submitted; 4 another job of this output is at work; 5 the cluster
cannot be reached, or has another Ray.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jobs.elsewhere import TYPED, run_name, wants_kuberay
from jobs.kuberay import start_job
from jobs.ray_jobs import check_ray_job, place_there, submit_ray_job
from jobs.settings import run_settings
from pipeline.again import Asked, mark_of
from pipeline.errors import ConfigError
from pipeline.manifest.sources import file_marks
from pipeline.settings import RunSettings

OWN = (TYPED, "dry_run", "check", "name", "python", "pass_env", "address", "kubernetes")
NO_MARK = (TYPED, "dry_run", "check", "name", "address", "manifest", "output", "findings")  # they change no clip


def submit(values: Mapping[str, Any]) -> int:
    settings = run_settings({key: value for key, value in values.items() if key not in OWN} | {"address": None})
    for key in ("dry_run", "check"):
        if not isinstance(values[key], bool):
            raise ConfigError(f"{key}: got {values[key]!r}, expected true or false")
    if not wants_kuberay(values):
        check_ray_job(values)  # a large table takes minutes to read
    looks = values["check"] and not values["dry_run"]
    left = rows_left(settings) if looks else None
    where = settings.output if wants_kuberay(values) else place_there(settings.output)
    name = run_name(where, values["name"], day=datetime.now(UTC).date())
    asked = Asked(name=name, mark=asked_mark(values, settings, reads=looks), left=left)
    return start_job(values, asked) if wants_kuberay(values) else submit_ray_job(values, asked)


def asked_mark(values: Mapping[str, Any], settings: RunSettings, *, reads: bool) -> str:
    """The same for the same settings and, where somebody may read them, the same files of the manifest."""
    said = {key: value for key, value in values.items() if key not in NO_MARK}
    said["manifest"] = ",".join(map(place_there, settings.manifest.split(",")))
    return mark_of(_digest(said), _digest(file_marks(settings.manifest, storage=settings.storage)) if reads else None)


def _digest(said: object) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def rows_left(settings: RunSettings) -> int:
    """How many are to be rendered. What `render` would refuse there is refused here; nothing is started."""
    from pipeline.planning.answer import PlanSettings, read_plan  # with torch: a dry run has no need of it

    found = read_plan(
        PlanSettings(
            manifest=settings.manifest,
            output=settings.output,
            weights=settings.weights,
            tokenizer=None,
            model=settings.model,
            media=settings.media,
            storage=settings.storage,
            images=settings.images,
            retry_failed=settings.retry.failed,
            truncate_text=settings.truncate_text,
            selection=settings.selection,
        )
    )
    return len(found.plan.to_render)
