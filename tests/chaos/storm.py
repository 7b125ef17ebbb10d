"""A storm: a render on several nodes, faults as the schedule says, and at the end everything as if nothing had been.

Raises `Broken` where something is not as it should be, with what was expected; everything that was started is ended.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import rendering
from tests.chaos.cluster import Nodes, children, enter, is_running, running_nodes, title
from tests.chaos.faults import Hit, Site, Steps, stages_of, steps
from tests.chaos.rendering import Render
from tests.chaos.schedule import STORAGE, Fault
from tests.e2e.runs import write_manifest
from tests.s3_server import running_swift
from tests.storage_proxy import StorageProxy, proxied
from tests.weights import write_weights

NUM_NODES = 2
POISON = "poison"
POISON_SEED = 666  # what hook/sitecustomize.py looks for
STEPS = 4
TURN_S = 0.1
QUICK_S, SLOW_S = 0.2, 2.5  # that a step sleeps; slow while faults have come that are not got over
FAULT_LIMIT_S = 400.0  # for a fault to come, be noticed and be got over, on a machine that is busy with other things
ENVIRONMENT_STOPPED = 5  # exit code of a run that its storage stopped; the same command goes on
MOST_STOPS = 2


class Broken(Exception):
    """Something did not survive."""


@dataclass
class Counts:
    """Objects that storage was asked to keep, each once, however often it was asked."""

    seen: dict[str, set[str]] = field(default_factory=lambda: {"record": set(), "upload": set()})

    def notice(self, request: str) -> None:
        method, _, path = request.partition(" ")
        for kind, folder in (("record", "/records/"), ("upload", "/clips/")):
            if method == "PUT" and folder in path:
                self.seen[kind].add(path.partition("?")[0])

    def reached(self, fault: Fault) -> bool:
        return len(self.seen[fault.after]) >= fault.count


@dataclass
class Outcome:
    num_clips: int
    hits: list[Hit]
    seconds: float
    num_stops: int  # times the run ended with 5 and was started again


@dataclass
class Storm:
    nodes: Nodes
    proxy: StorageProxy
    words: list[str]
    schedule: list[Fault]
    limit_s: float
    log: Path
    pace: Path  # gets how long each step is to sleep
    counts: Counts = field(default_factory=Counts)
    hits: list[Hit] = field(default_factory=list)
    active: list[tuple[Hit, Steps, float]] = field(default_factory=list)
    num_stops: int = 0

    def __post_init__(self) -> None:
        self._set_pace()
        self.proxy.notice = self.counts.notice
        self.site = Site(self.nodes, self.proxy, self._start(), self.start_again)

    def start_again(self) -> None:
        self.site.render = self._start()

    def run(self) -> int:
        """Until the run has ended by itself. Its exit code."""
        end_s = time.monotonic() + self.limit_s
        while True:
            if time.monotonic() > end_s:
                raise Broken(f"the run has not ended after {self.limit_s:g} s, with {self._state()}")
            code = self.site.render.process.poll()
            if code == ENVIRONMENT_STOPPED and self.num_stops < MOST_STOPS:
                self._go_on()
            elif code is not None:
                return self._finish(code)
            self._turn()
            time.sleep(TURN_S)

    def close(self) -> None:
        self.site.render.kill()

    def _start(self) -> Render:
        return rendering.start(self.words, log=self.log)

    def _turn(self) -> None:
        self.nodes.tend()
        busy = {stage for hit, _, _ in self.active for stage in stages_of(hit.fault.kind)}
        for fault in list(self.schedule):
            if not self.counts.reached(fault):
                break
            if not stages_of(fault.kind) & busy:
                self.schedule.remove(fault)
                self._begin(fault)
            busy |= stages_of(fault.kind)  # those that wait for it go first
        for each in list(self.active):
            self._step(*each)
        self._set_pace()

    def _set_pace(self) -> None:
        """A slow machine is not to be through with its clips before the faults are."""
        waiting = [fault for fault in self.schedule if self.counts.reached(fault)]
        is_slow = waiting or any(hit.fault.kind not in STORAGE for hit, _, _ in self.active)
        _replace(self.pace, str(SLOW_S if is_slow else QUICK_S))

    def _begin(self, fault: Fault) -> None:
        hit = Hit(fault)
        self.hits.append(hit)
        self.active.append((hit, steps(self.site, hit), time.monotonic() + FAULT_LIMIT_S))
        _say(str(fault))

    def _step(self, hit: Hit, going: Steps, end_s: float) -> None:
        try:
            next(going)
        except StopIteration:
            self.active = [each for each in self.active if each[0] is not hit]
            _say(f"{hit.fault} ({hit.what}): detected {_s(hit.detect_s)}, recovered {_s(hit.recover_s)}")
        if time.monotonic() > end_s:
            raise Broken(f"{hit.fault} ({hit.what}) is not got over within {FAULT_LIMIT_S:g} s, with {self._state()}")

    def _go_on(self) -> None:
        """As whoever watches over runs would do when storage is back. Faults under way are over with the run."""
        self.num_stops += 1
        while self.proxy.is_away:
            time.sleep(TURN_S)
        self.active.clear()
        self.start_again()

    def _finish(self, code: int) -> int:
        for thread in self.site.render.threads:
            thread.join(timeout=10)
        for each in list(self.active):
            self._step(*each)
        for hit, _, _ in self.active:
            hit.recovered_s = time.monotonic()  # with the run, which has no more need of what was hit
        left = [str(fault) for fault in self.schedule] + [
            str(hit.fault) for hit, _, _ in self.active if hit.at_s is None
        ]
        if left:
            raise Broken(f"the run ended with {code} before these faults came: {', '.join(left)}")
        return code

    def _state(self) -> str:
        counts = {kind: len(keys) for kind, keys in self.counts.seen.items()}
        active = [f"{hit.fault} ({hit.what})" for hit, _, _ in self.active]
        last = self.site.render.said()[-1500:]
        return f"{counts} written, under way: {active}, and it says:\n{last}"


def run_storm(schedule: Sequence[Fault], num_clips: int, *, limit_s: float, log: Path) -> Outcome:
    began = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(_folder()))
        server = stack.enter_context(running_swift(made(folder / "swift")))
        bucket = server.create_bucket()
        pace = folder / "pace"
        proxy = stack.enter_context(proxied(server))
        enter(folder, **proxy.server.environment, HAPPYHORSE_STORM_PACE=str(pace))
        words = [
            f"manifest={write_rows(folder / 'manifest.parquet', num_clips)}",
            f"output={bucket}/out",
            f"weights={folder / 'weights'}",
            *rendering.WORDS,
            *rendering.model_words(),
        ]
        write_weights(folder / "weights", rendering.model_of(words))
        stack.callback(end_all)
        nodes = stack.enter_context(running_nodes(NUM_NODES))
        _say(f"{num_clips} clips on {NUM_NODES} nodes at {nodes.address}, {len(schedule)} faults")
        storm = Storm(
            nodes,
            proxy,
            [*words, f"address={nodes.address}"],
            list(schedule),
            limit_s,
            log,
            pace,
        )
        stack.callback(storm.close)
        code = storm.run()
        proxy.faults.clear()
        check(code, storm, output=f"{bucket}/out", num_clips=num_clips)
        outcome = Outcome(num_clips, storm.hits, time.monotonic() - began, storm.num_stops)
    if left := [title(each) for each in children() if is_running(each)]:
        raise Broken(f"processes are left after everything was ended: {left}")
    return outcome


def write_rows(path: Path, num_clips: int, *, poison: bool = True) -> Path:
    """Short clips, each with a prompt of its own, so that encoders have work to the end; one is poison."""
    rows: list[dict[str, Any]] = [
        {"clip_id": f"clip-{n:03}", "prompt": f"a red ball for prompt {n}", "seed": 1000 + n} for n in range(num_clips)
    ]
    if poison:
        rows[num_clips * 3 // 5] |= {"clip_id": POISON, "prompt": "a blue square", "seed": POISON_SEED}
    return write_manifest(path, [row | {"duration": 3, "steps": STEPS, "ratio": "16:9"} for row in rows])


def check(code: int, storm: Storm, *, output: str, num_clips: int) -> None:
    """The poisonous clip has FAILED with its reason, everything else is there, once and whole, and nothing is left."""
    said = storm.site.render.said()
    if code != 1:
        raise Broken(f"the run ended with {code}, expected 1 (one clip failed):\n{said[-3000:]}")
    failed = [line.strip() for line in said.splitlines() if line.startswith("  failed ")]
    if len(failed) != 1 or not failed[0].startswith(f"failed {POISON}: render: group-"):
        raise Broken(f"these clips failed, expected only {POISON}, by its group: {failed}")
    audited = rendering.call("audit", f"output={output}", "format=json", *_storage_words())
    if audited.returncode:
        raise Broken(f"audit: exit {audited.returncode}\n{audited.stdout}\n{audited.stderr}")
    found = json.loads(audited.stdout)
    rows = {state: count for state, count in found["rows"].items() if count}
    if found["num_findings"] or rows != {"SUCCEEDED": num_clips - 1, "FAILED": 1}:
        raise Broken(f"audit: {found['num_findings']} findings, rows {rows}")
    if left := storm.nodes.leftovers():
        raise Broken(f"the run has left: {'; '.join(left)}")


def _storage_words() -> list[str]:
    return [word for word in rendering.WORDS if word.startswith("storage.")]


@contextmanager
def _folder() -> Iterator[str]:
    """A short name: Ray puts sockets in it, whose paths may have 107 characters."""
    folder = tempfile.mkdtemp(prefix="storm-", dir="/tmp" if os.path.isdir("/tmp") else None)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _replace(path: Path, text: str) -> None:
    """At once: others read it all the time."""
    if not path.exists() or path.read_text() != text:
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").replace(path)


def end_all() -> None:
    for each in children():
        if "swift_server" not in title(each):
            each.kill()


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _s(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
