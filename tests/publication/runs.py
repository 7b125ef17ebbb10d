"""Runs in processes of their own that are forked at once, and what has to hold of an output whatever became of them."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from pipeline.audit.auditing import audit_output
from pipeline.audit.rows import read_rows
from pipeline.store import Store, open_store
from tests.outputs import row_settings
from tests.publication.child import Job, work

PROCESSES = multiprocessing.get_context("forkserver")  # imports once, and forks from where no thread runs yet
LATE = ("numpy.ma", "dateutil.relativedelta")  # pyarrow and numpy import these when first asked for a column
PROCESSES.set_forkserver_preload(["tests.publication.child", *LATE])
TIMEOUT_S = 120.0


def start(job: Job, *, does: Callable[[Job, Connection], None] = work) -> tuple[BaseProcess, Connection]:
    """The process, and where it says how it ended."""
    ours, theirs = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=does, args=(job, theirs))
    process.start()
    theirs.close()
    return process, ours


def run(job: Job) -> tuple[int | None, str]:
    """To its end: exit code, and what it said last: an error, or the call before which it died."""
    process, said = start(job)
    process.join(TIMEOUT_S)
    process.kill()
    try:
        return process.exitcode, said.recv()
    except EOFError:
        return process.exitcode, ""


def records(store: Store) -> dict[str, bytes]:
    return {entry.key: store.get(entry.key) for entry in store.list("records")}


def assert_sound(store: Store) -> None:
    """What holds at any moment: whatever is recorded is there as recorded, and no clip has two records."""
    clips = [key.removeprefix("records/").split(".")[0] for key in records(store)]
    assert len(clips) == len(set(clips))
    if clips:
        assert audit_output(store, rows=None).findings.kept == []


def assert_whole(job: Job) -> None:
    """Every row is done, once, and an audit finds nothing wrong."""
    store = open_store(job.output, job.storage)
    report = audit_output(store, rows=read_rows(row_settings(job.manifest), store.settings))
    assert report.findings.kept == []
    assert report.states is not None
    assert report.states["SUCCEEDED"] == sum(report.states.values()) == report.num_records
    assert store.head("_SUCCESS.json")
