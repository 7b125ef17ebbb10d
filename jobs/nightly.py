"""`happyhorse nightly inbox=X output=Y window=22:00-06:00`: renders the manifests of an inbox inside a window of hours.

Exit 0 nothing is left to do; 1 clips failed or a manifest was set aside; 2 nothing was started; 3 work is left for the
next night; 4 another run has the output or a manifest's; 5 the environment stopped one. The gravest counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.elsewhere import TYPED, wants_kuberay
from jobs.settings import run_settings
from jobs.typed import build
from pipeline.counting import counted
from pipeline.errors import ConfigError
from pipeline.nightly.channels import Channel, channels
from pipeline.nightly.settings import NightlySettings
from pipeline.nightly.windows import Window
from pipeline.planning.target import Target, check_target

if TYPE_CHECKING:
    from pipeline.nightly.loop import Report

OWN = (
    "inbox",
    "split",
    "budget",
    "must_finish_by",
    "forever",
    "early_s",
    "poll_s",
    "settle_s",
    "retry_after_s",
    "failed_threshold",
    "budget_threshold",
)
TARGET = ("card", "gpus", "utilisation")
TOLD = ("webhook", "hook", "notice_timeout_s")
WINDOW = ("window", "timezone")
ELSEWHERE = (TYPED, "dry_run", "name", "kubernetes")


@dataclass(frozen=True, kw_only=True)
class Told:
    webhook: str | None
    hook: str | None
    notice_timeout_s: float


def nightly(values: Mapping[str, Any]) -> int:
    settings = nightly_settings(values)
    if wants_kuberay(values):
        return _by_cron(values, settings)
    if values["dry_run"]:
        raise ConfigError("dry_run=true prints what cluster=kuberay would start; `plan` says what a render would do")
    from pipeline.nightly.run import run_nightly  # with all that renders: a dry run has no need of it

    report = run_nightly(settings, channels=told_to(values))
    print(*tell(report, settings), sep="\n")
    return report.exit_code


def nightly_settings(values: Mapping[str, Any]) -> NightlySettings:
    """ConfigError for a wrong type or value, naming its key."""
    render = {key: value for key, value in values.items() if key not in (*OWN, *TARGET, *TOLD, *WINDOW, *ELSEWHERE)}
    every_row = {"manifest": values["inbox"], "where": None, "shard": None, "limit": None}
    settings = run_settings({**render, **every_row})
    window = build(_Window, {key: values[key] for key in WINDOW}, at="")
    crews = {"encoders": settings.cluster.num_encoders, "finishers": settings.cluster.num_finishers}
    placed = {"tp": settings.parallel.tp, "placing": settings.placing, **crews}
    target = build(Target, {key: values[key] for key in TARGET} | placed, at="")
    check_target(settings.model, target)
    own = {key: values[key] for key in OWN}
    return build(
        NightlySettings,
        {
            **own,
            "output": settings.output,
            "render": settings,
            "target": target,
            "window": Window(hours=window.window, timezone=window.timezone),
        },
        at="",
    )


def told_to(values: Mapping[str, Any]) -> tuple[Channel, ...]:
    told = build(Told, {key: values[key] for key in TOLD}, at="")
    return channels(webhook=told.webhook, hook=told.hook, timeout_s=told.notice_timeout_s)


def _by_cron(values: Mapping[str, Any], settings: NightlySettings) -> int:
    from jobs.kuberay import start_cron_job

    if settings.forever:
        raise ConfigError("forever=true is one process; cluster=kuberay starts one every night")
    if not isinstance(values["dry_run"], bool):
        raise ConfigError(f"dry_run: got {values['dry_run']!r}, expected true or false")
    return start_cron_job(values, opens=settings.window.opens, timezone=settings.window.timezone)


def tell(report: "Report", settings: NightlySettings) -> list[str]:
    """What a person wants to read last."""
    window = settings.window
    night = f"{window.shown(report.night.opens_at)} to {window.shown(report.night.closes_at)}"
    lines = [f"the night of {night}: {counted(len(report.standings), 'manifest')} in {settings.inbox}"]
    lines += [f"  {file} is {state}: {line}" for file, (state, line) in report.standings.items()]
    if settings.budget is not None:
        lines.append(f"{report.gpu_hours:.2f} of {settings.budget:g} GPU-hours are used")
    if any(state == "left" for state, _ in report.standings.values()):
        lines.append(f"what is left goes on with the same command, next from {window.shown(report.next_opening)}")
    return lines


@dataclass(frozen=True, kw_only=True)
class _Window:
    window: str
    timezone: str
