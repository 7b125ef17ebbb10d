"""`python -m tests.chaos.soak [--clips 2000]`: a long run in which nothing fails, and what it keeps while it lasts.

Every few seconds the memory, open files and threads of each process are noted, and the objects in Ray's store. A line
through the memory by least squares says how much a thousand clips leave behind; its start-up is left out. Pools and
arenas still fill up long after that, so what counts is the second half of the clips.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil

from tests.chaos import rendering
from tests.chaos.cluster import Nodes, children, enter, running_nodes, title
from tests.chaos.storm import Broken, end_all, made, write_rows
from tests.s3_server import running_swift
from tests.weights import write_weights

EVERY_S = 5.0
LIMIT_S = 3600.0
WARM = 0.15  # of the clips, until caches and pools have grown to their size
MOST_MB_A_THOUSAND = 8.0  # that a process may keep; a clip's latents or frames alone would be more
HEADER = ("process", "MB at first", "MB at last", "MB a 1,000 clips", "in the second half", "open files", "threads")


@dataclass(frozen=True)
class Sample:
    """One process at one moment."""

    clips: int  # that were done by then
    rss_bytes: int
    files: int
    threads: int


@dataclass(frozen=True)
class Series:
    """All samples of one process after it was warm."""

    name: str
    samples: list[Sample]

    @property
    def mb_a_thousand(self) -> float:
        return _slope(self.samples)

    @property
    def late_mb_a_thousand(self) -> float:
        """Of the second half of the clips."""
        middle = (self.samples[0].clips + self.samples[-1].clips) / 2
        return _slope([each for each in self.samples if each.clips >= middle])


def _slope(samples: Sequence[Sample]) -> float:
    """MB a thousand clips, by least squares."""
    clips = [each.clips for each in samples]
    return float(np.polyfit(clips, [each.rss_bytes / 1e6 for each in samples], 1)[0] * 1000)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--log", type=Path, default=Path("outputs/soak.log"))
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    began = time.monotonic()
    try:
        series, objects = soak(given.clips, log=given.log)
    except Broken as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    lines = [*_head(given.clips, time.monotonic() - began), *_lines(series, objects)]
    print(*lines, sep="\n")
    if given.page:
        given.page.write_text("\n".join([*lines, ""]))
    grown = [each.name for each in series if each.late_mb_a_thousand > MOST_MB_A_THOUSAND]
    if grown:
        print(f"these keep more than {MOST_MB_A_THOUSAND:g} MB a 1,000 clips: {', '.join(grown)}", file=sys.stderr)
    return 1 if grown else 0


def soak(num_clips: int, *, log: Path) -> tuple[list[Series], list[int]]:
    """Of each process of the run; and of the objects in Ray's store, at the same moments."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp")))
        server = stack.enter_context(running_swift(made(folder / "swift")))
        output = f"{server.create_bucket()}/out"
        enter(folder, **server.environment)
        words = [
            f"manifest={write_rows(folder / 'manifest.parquet', num_clips, poison=False)}",
            f"output={output}",
            f"weights={folder / 'weights'}",
            *rendering.WORDS,
            *rendering.model_words(),
        ]
        write_weights(folder / "weights", rendering.model_of(words))
        stack.callback(end_all)
        nodes = stack.enter_context(running_nodes(2))
        render = rendering.start([*words, f"address={nodes.address}"], log=log)
        stack.callback(render.kill)
        found = _watch(render, nodes, num_clips)
        if render.process.returncode:
            raise Broken(f"the run ended with {render.process.returncode}:\n{render.said()[-2000:]}")
        return found


def _watch(render: rendering.Render, nodes: Nodes, num_clips: int) -> tuple[list[Series], list[int]]:
    samples: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    objects: list[int] = []
    end_s = time.monotonic() + LIMIT_S
    while render.process.poll() is None:
        if time.monotonic() > end_s:
            raise Broken(f"not over after {LIMIT_S:g} s:\n{render.said()[-1000:]}")
        clips = render.num_done()
        if WARM * num_clips < clips < num_clips:  # nor while it ends
            for name, process in _processes(render, nodes):
                try:
                    with process.oneshot():
                        sample = Sample(clips, process.memory_info().rss, process.num_fds(), process.num_threads())
                except psutil.Error:
                    continue
                samples[name, process.pid].append(sample)
            objects.append(nodes.num_objects())
        time.sleep(EVERY_S)
    return [Series(name, each) for (name, _), each in sorted(samples.items()) if len(each) > 5], objects


def _processes(render: rendering.Render, nodes: Nodes) -> Iterator[tuple[str, psutil.Process]]:
    yield "driver", psutil.Process(render.process.pid)
    for node in nodes.alive:
        yield from (
            ("raylet", each) for each in children(node.starter) if "/raylet/raylet" in title(each).split(" ")[0]
        )
        for kind, name in (("RankWorker", "rank"), ("Finisher", "finisher"), ("PromptEncoder", "encoder")):
            yield from ((name, each) for each in node.actors(kind))


def _head(num_clips: int, seconds: float) -> Iterator[str]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    yield "# A long run"
    yield ""
    yield f"{datetime.now(UTC):%Y-%m-%d}, `make soak`, commit {commit.stdout.strip() or 'unknown'}, on {os.cpu_count()}"
    yield f"cores ({platform.machine()}), shared with other work: {num_clips:,} clips of a tiny model in one run of"
    yield f"{seconds:.0f} s, two groups of two ranks on two Ray nodes, two finishers, storage is OpenStack Swift."
    yield ""


def _lines(series: Iterable[Series], objects: list[int]) -> Iterator[str]:
    yield _row(HEADER)
    yield _row("---" for _ in HEADER)
    for each in series:
        first, last = each.samples[0], each.samples[-1]
        yield _row(
            (
                each.name,
                f"{first.rss_bytes / 1e6:.0f}",
                f"{last.rss_bytes / 1e6:.0f}",
                f"{each.mb_a_thousand:+.2f}",
                f"{each.late_mb_a_thousand:+.2f}",
                f"{first.files} → {last.files}",
                f"{first.threads} → {last.threads}",
            )
        )
    yield ""
    yield f"Objects in Ray's stores: {objects[0]} at first, {objects[-1]} at last, {max(objects)} at most (small"
    yield "ones, as this model's latents, travel inside of calls)."
    yield f"From {WARM:.0%} of the clips on; slopes are least-squares lines through a sample every {EVERY_S:g} s."


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
