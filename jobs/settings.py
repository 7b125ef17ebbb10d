"""A command's values -> the frozen settings that `pipeline/` and `model/` take. The last place that knows `conf/`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jobs.typed import build
from pipeline.manifest.selection import Selection
from pipeline.settings import LeaseSettings, PeopleSettings, RunSettings

SELECTING = ("where", "shard", "limit")  # keys of the root that say which rows


@dataclass(frozen=True, kw_only=True)
class JobSettings(LeaseSettings):
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    control_s: float = 5.0
    clip_logs: bool = True


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    truncate: bool


def job_settings(values: Mapping[str, Any]) -> JobSettings:
    return build(JobSettings, values.get("job", {}), at="job")


def lease_settings(values: Mapping[str, Any]) -> LeaseSettings:
    """What of `job` says how an output is held."""
    job = job_settings(values)
    return LeaseSettings(lease_s=job.lease_s, wait_s=job.wait_s, settle_s=job.settle_s)


def people_settings(values: Mapping[str, Any]) -> PeopleSettings:
    """What of `job` is for those who look on."""
    job = job_settings(values)
    return PeopleSettings(control_s=job.control_s, clip_logs=job.clip_logs)


def run_settings(values: Mapping[str, Any]) -> RunSettings:
    """What `render` does. ConfigError for a wrong type or value, naming its key."""
    own = {key: value for key, value in values.items() if key not in ("address", "job", "text", *SELECTING)}
    own["selection"] = build(Selection, {key: values[key] for key in SELECTING}, at="")
    own["lease"] = lease_settings(values)
    own["people"] = people_settings(values)
    own["truncate_text"] = build(TextSettings, values["text"], at="text").truncate
    if values["address"] is not None:
        own["cluster"] = {**own["cluster"], "address": values["address"]}
    return build(RunSettings, own, at="")
