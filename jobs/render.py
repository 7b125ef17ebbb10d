"""`happyhorse render manifest=X output=Y`: renders what is not recorded yet, then says where it is and what failed."""

from collections.abc import Mapping
from typing import Any

from jobs.settings import run_settings
from pipeline.counting import counted
from pipeline.manifest.selection import EVERYTHING
from pipeline.run import render_manifest
from pipeline.summary import STOPPED, RunSummary


def render(values: Mapping[str, Any]) -> int:
    settings = run_settings(values)
    summary = render_manifest(settings)
    print(*tell(summary, output=settings.output), sep="\n")
    if settings.selection != EVERYTHING:
        print("results.parquet holds the rows that were selected; without where, shard and limit it holds all")
    return summary.exit_code


def tell(summary: RunSummary, *, output: str) -> list[str]:
    """What a person wants to read last."""
    counts = [f"{summary.num_rendered} rendered"]
    counts += [f"{summary.num_done_before} done before"] if summary.num_done_before else []
    counts += [f"{len(summary.failed)} failed"] if summary.failed else []
    counts += [f"{summary.num_pending} left"] if summary.num_pending else []
    pace = f" ({summary.clips_per_hour:.0f} clips an hour once the model was loaded)" if summary.clips_per_hour else ""
    lines = [f"{counted(summary.num_clips, 'clip')}: {', '.join(counts)}, in {summary.seconds:.0f} s{pace}"]
    lines += [f"  failed {clip_id}: {reason}" for clip_id, reason in summary.failed.items()]
    lines += [f"stopped: {summary.stopped}"] if summary.stopped else []
    lines += ["the same command goes on from here"] if summary.exit_code == STOPPED else []
    return [*lines, f"videos and sounds are in {output.rstrip('/')}/clips, a row for each in results.parquet beside it"]
