"""`happyhorse plan manifest=X [output=Y]`: what is left, and what it would take. Exit 0, or 2 as `render`."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from rich.console import Console

from jobs.plan_page import page
from jobs.plan_values import plan_values
from jobs.settings import SELECTING, TextSettings
from jobs.typed import build
from pipeline.manifest.selection import Selection
from pipeline.planning.answer import PlanSettings, read_plan
from pipeline.planning.target import Target

TARGET = ("card", "gpus", "tp", "encoders", "finishers", "utilisation", "price", "placing")
PIPE_COLUMNS = 100  # a pipe has no width


@dataclass(frozen=True, kw_only=True)
class RetryFailed:
    failed: bool


@dataclass(frozen=True, kw_only=True)
class Shown:
    format: Literal["table", "json"]


def plan(values: Mapping[str, Any]) -> int:
    settings = plan_settings(values)
    shown = build(Shown, {"format": values["format"]}, at="")
    found = read_plan(settings)
    if shown.format == "json":
        print(json.dumps(plan_values(settings, found), ensure_ascii=False, indent=1, allow_nan=False))
    else:
        console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)
        for each in page(settings, found):
            console.print(each)
    return 0


def plan_settings(values: Mapping[str, Any]) -> PlanSettings:
    """ConfigError for a wrong type or value, naming its key."""
    apart = ("job", "text", "retry", "format", *SELECTING, *TARGET)
    own = {key: value for key, value in values.items() if key not in apart}
    own["selection"] = build(Selection, {key: values[key] for key in SELECTING}, at="")
    own["truncate_text"] = build(TextSettings, values["text"], at="text").truncate
    own["retry_failed"] = build(RetryFailed, values["retry"], at="retry").failed
    wanted = {key: values[key] for key in TARGET}
    if type(wanted["card"]) is int:
        wanted["card"] = str(wanted["card"])  # 24: to be told what cards are called
    target = build(Target, wanted, at="")
    return replace(build(PlanSettings, own, at=""), target=target)
