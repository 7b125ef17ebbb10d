"""`happyhorse submit manifest=X output=Y cluster=ray|kuberay`: a render that goes on when this machine is switched off.

Exit 0 submitted, or there already; 2 nothing was submitted; 5 the cluster cannot be reached.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jobs.elsewhere import TYPED, wants_kuberay
from jobs.kuberay import start_job
from jobs.ray_jobs import submit_ray_job
from jobs.settings import run_settings
from pipeline.errors import ConfigError
from pipeline.settings import RunSettings

OWN = (TYPED, "dry_run", "check", "name", "python", "pass_env", "address", "kubernetes")


def submit(values: Mapping[str, Any]) -> int:
    settings = run_settings({key: value for key, value in values.items() if key not in OWN} | {"address": None})
    for key in ("dry_run", "check"):
        if not isinstance(values[key], bool):
            raise ConfigError(f"{key}: got {values[key]!r}, expected true or false")
    if values["check"] and not values["dry_run"]:
        check_rows(settings)
    today = datetime.now(UTC).date()
    return start_job(values, today=today) if wants_kuberay(values) else submit_ray_job(values, today=today)


def check_rows(settings: RunSettings) -> None:
    """What `render` would refuse there is refused here. Reads the manifest and what is done; starts nothing."""
    from pipeline.planning.answer import PlanSettings, read_plan  # with torch: a dry run has no need of it

    read_plan(
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
