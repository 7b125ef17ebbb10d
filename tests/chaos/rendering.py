"""The run under fire: a real `happyhorse render` in a process of its own, and what it says, each line with its time.

The same words start it again after it was killed, as a person would.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jobs.compose import compose_values
from jobs.settings import run_settings
from jobs.words import read_words
from model.config import ModelConfig
from tests.weights import noise_model

ROOT = Path(__file__).parents[2]
# Of this tree, also where it is a copy.
COMMAND = (
    sys.executable,
    "-c",
    "import sys; from jobs.cli import main; sys.exit(main())",
)
STEP_S = 8.0
FINISH_S = 100.0  # more than the minute that storage is gone
RETRY_S = 85.0
WORDS = (
    "model=foal",
    "parallel=tp2",
    "parallel.groups=2",
    "cluster.num_finishers=2",
    "cluster.max_kept_conditions=0",  # few prompts are made ahead, so that there is an encoder to be hit to the end
    "cluster.clips_encoded_ahead=1",
    "cluster.placement_timeout_s=180",
    "cluster.load_timeout_s=180",
    "cluster.encode_timeout_s=30",
    f"cluster.step_timeout_s={STEP_S:g}",
    f"cluster.finish_timeout_s={FINISH_S:g}",
    "cluster.collective_timeout_s=60",
    "job.lease_s=300",  # it outlives a minute without storage; on one host a dead holder is seen at once
    "storage.timeout_s=5",
    "storage.connect_timeout_s=2",
    "storage.retries=100",
    f"storage.retry_timeout_s={RETRY_S:g}",
)
LOST = re.compile(r" lost ((?:group|enlarger|encoder|finisher)-\d+)\b.*?: (.*)")
READY = re.compile(r" ((?:group|encoder|finisher)-\d+) is ready")
DONE = re.compile(r" clip (\S+) is done")


@dataclass(frozen=True)
class Line:
    at_s: float  # by the monotonic clock, when it was read
    text: str


@dataclass(frozen=True)
class Loss:
    at_s: float
    crew: str
    reason: str


@dataclass
class Render:
    """One process of the run. `lines` grows while it speaks."""

    process: subprocess.Popen[str]
    log: Path  # gets them too, as they come
    lines: list[Line] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def listen(self) -> None:
        for pipe in (self.process.stdout, self.process.stderr):
            thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def losses(self, since_s: float) -> list[Loss]:
        found = [(line, LOST.search(line.text)) for line in self._since(since_s)]
        return [Loss(line.at_s, match[1], match[2]) for line, match in found if match]

    def ready_at(self, crew: str, since_s: float) -> float | None:
        """When it was ready for the first time after that."""
        found = ((line, READY.search(line.text)) for line in self._since(since_s))
        return next((line.at_s for line, match in found if match and match[1] == crew), None)

    def crews(self) -> int:
        """How many have ever been ready."""
        return len({match[1] for line in list(self.lines) if (match := READY.search(line.text))})

    def done_at(self, since_s: float) -> float | None:
        """When the first clip after that was done."""
        return next((line.at_s for line in self._since(since_s) if DONE.search(line.text)), None)

    def num_done(self) -> int:
        return sum(DONE.search(line.text) is not None for line in list(self.lines))

    def said_at(self, text: str, since_s: float) -> float | None:
        """When it said that for the first time after that."""
        return next((line.at_s for line in self._since(since_s) if text in line.text), None)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)
        for thread in self.threads:
            thread.join(timeout=10)

    def said(self) -> str:
        return "".join(line.text for line in list(self.lines))

    def _since(self, since_s: float) -> list[Line]:
        return [line for line in list(self.lines) if line.at_s >= since_s]

    def _read(self, pipe: Any) -> None:
        with self.log.open("a", buffering=1) as log:
            for text in pipe:
                self.lines.append(Line(time.monotonic(), text))
                log.write(text)


def start(words: Sequence[str], *, log: Path) -> Render:
    process = subprocess.Popen(
        [*COMMAND, "render", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    render = Render(process, log)
    render.listen()
    return render


def call(*words: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Any other command of ours, to its end."""
    return subprocess.run([*COMMAND, *words], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)


def model_words() -> list[str]:
    """A foal of two small layers, in both of its stages; its weights are to be made for it."""
    small = _written(asdict(noise_model().transformer))
    return ["model.name=storm", f"model.transformer={small}", f"model.super_resolution.transformer={small}"]


def model_of(words: Sequence[str]) -> ModelConfig:
    """What the command line makes of such words."""
    return run_settings(compose_values("render", read_words(words))).model


def _written(value: Any) -> str:
    """In the grammar of the command line."""
    match value:
        case dict():
            return "{" + ",".join(f"{name}:{_written(each)}" for name, each in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_written, value)) + "]"
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case _:
            return str(value)
