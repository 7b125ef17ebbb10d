"""A run over an output in a process of its own, without Ray: real files, the real upload, ledger and recorder.

It may kill itself with SIGKILL before any of its calls to storage, be it a bucket's request or a step on disk.
"""

import io
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import obstore

from pipeline.errors import StoreError
from pipeline.lease.acquiring import acquire
from pipeline.lease.holder import Machine, new_run_id
from pipeline.lease.holding import Lease
from pipeline.ledger import Ledger
from pipeline.plan import make_plan
from pipeline.probing import StoreMode, probe
from pipeline.publication import upload
from pipeline.recording import RunRecorder
from pipeline.settings import LeaseSettings
from pipeline.store import StorageSettings, Store, open_store
from pipeline.summary import ENVIRONMENT
from pipeline.types import Clip, Finished, Probe
from tests.clips import MEDIA
from tests.manifests import read
from tests.outputs import facts

READS = ("get", "get_range", "head", "list")  # obstore's, for folders too
WRITES = ("put", "delete")
DISK = ("mkdir", "fsync", "link", "replace", "unlink")
SECONDS = {"render": 1.0}
ALONE = LeaseSettings()
NOBODY_ELSE = Machine(sleep=lambda seconds: None)  # no other run starts: no need to let claims settle


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one process is to do."""

    manifest: Path
    output: str
    environment: Mapping[str, str]
    media: Mapping[str, Path]  # by kind: what a finisher has encoded
    probe: Probe
    storage: StorageSettings
    mode: StoreMode | None = None  # None: it is to find out
    cut: int | None = None  # the storage call, counted from 0, before which it dies
    clip_s: float = 0.0  # that rendering a clip takes
    reads_count: bool = True  # else only calls that change something are counted


class Steps:
    """Counts the calls to storage below the output. Says the name of one of them and dies before it."""

    def __init__(self, job: Job, said: Connection) -> None:
        self.count = 0
        self._cut, self._said = job.cut, said
        self._below = job.output.partition("://")[2].partition("/")[2] or job.output.lstrip("/")
        for name in (*READS, *WRITES) if job.reads_count else WRITES:
            setattr(obstore, name, self._counted(getattr(obstore, name), name, lambda args: str(args[1])))
        for name in DISK:
            setattr(os, name, self._counted(getattr(os, name), name, _path))
        io.open = self._opened(io.open)  # type: ignore[assignment]

    def _step(self, name: str, what: str) -> None:
        if what.startswith(self._below):
            if self.count == self._cut:
                self._said.send(f"{name} {what.removeprefix(self._below)}")
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1

    def _counted(self, real: Callable[..., Any], name: str, subject: Callable[[tuple[Any, ...]], str]) -> object:
        def counted(*args: Any, **options: Any) -> Any:
            self._step(name, subject(args))
            return real(*args, **options)

        return counted

    def _opened(self, real: Callable[..., Any]) -> object:
        """Before anything is written into a file that is there by then, empty."""

        def opened(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            file = real(path, mode, *args, **options)
            if "r" not in mode:
                self._step("write", _path((path,)))
            return file

        return opened


def _path(args: tuple[Any, ...]) -> str:
    """The last path among the arguments of a step on disk; a descriptor's own."""
    paths = [os.fspath(each) for each in args if not isinstance(each, int)]
    return (paths[-1] if paths else os.readlink(f"/proc/self/fd/{args[0]}")).lstrip("/")


def work(job: Job, said: Connection, *, lease: LeaseSettings = ALONE, machine: Machine = NOBODY_ELSE) -> None:
    """What `render` would do: one line and its exit code where storage says no."""
    os.environ.update(job.environment)
    Steps(job, said)
    try:
        store, run_id = open_store(job.output, job.storage), new_run_id(datetime.now(UTC))
        mode = job.mode or probe(store)
        with acquire(store, run_id=run_id, mode=mode, settings=lease, machine=machine) as held:
            _run(job, store, run_id=run_id, lease=held)
    except StoreError as error:
        said.send(str(error))
        sys.exit(ENVIRONMENT)


def _run(job: Job, store: Store, *, run_id: str, lease: Lease) -> None:
    manifest = read(job.manifest)
    plan = make_plan(manifest.index, Ledger(store).done_keys())
    run_facts = facts(store, job.manifest, run_id=run_id)
    recorder = RunRecorder(store, manifest=manifest, plan=plan, facts=run_facts, media=MEDIA, lease=lease)
    recorder.begin()
    for clip in manifest.load(plan.to_render):
        time.sleep(job.clip_s)
        finished = _finish(job, store, clip)
        recorder.record(clip, finished=finished, num_attempts=1, seconds=SECONDS)
    recorder.close()


def _finish(job: Job, store: Store, clip: Clip) -> Finished:
    attempt = secrets.token_hex(4)
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: Path(folder) / f"{clip.clip_id}.{attempt}.{kind}" for kind in job.media}
        for kind, path in files.items():
            shutil.copyfile(job.media[kind], path)
        return Finished(attempt=attempt, files=upload(store, files), probe=job.probe, seconds={"upload": 0.1})


def work_on_upload(job: Job, said: Connection) -> None:
    """One file alone."""
    os.environ.update(job.environment)
    upload(open_store(job.output, job.storage), {"wav": job.media["wav"]})
    said.send("uploaded")
