"""`happyhorse COMMAND [WORD ...] [key=value ...]`: finds the command, its values, and exit codes for its errors.

0 all well; 1 some clips failed, or a check found something; 2 nothing was started, or could not be checked;
3 stopped by a signal with work left; 4 another run is at work on the output; 5 stopped by storage, credentials, disk
or the cluster.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from jobs.compose import compose_values
from jobs.elsewhere import TYPED, with_examples
from jobs.help import explain, overview
from jobs.settings import job_settings
from jobs.words import nearest, read_words
from pipeline.errors import ConfigError, LeaseHeld, ManifestError, OutputPaused, RenderError, WeightsError
from pipeline.log_lines import LineFormatter
from pipeline.redact import redacted
from pipeline.summary import BAD_INPUT, ENVIRONMENT, HELD, STOPPED

Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Command:
    summary: str
    run: Callable[[Values], int]  # imports what it needs when it is called: `--help` waits for neither torch nor Ray
    is_check: bool = False  # whatever stops it is "could not be checked": 2
    positional: tuple[str, ...] = ()  # keys that words without one fill, in order; `null` in conf/ makes one optional
    examples: Mapping[str, str] | None = None  # of a dry run for Kubernetes, which may go without; None: it has none


def _render(values: Values) -> int:
    from jobs.render import render

    return render(values)


def _plan(values: Values) -> int:
    from jobs.plan import plan

    return plan(values)


def _verify(values: Values) -> int:
    from jobs.verify import verify

    return verify(values)


def _audit(values: Values) -> int:
    from jobs.audit import audit

    return audit(values)


def _clean(values: Values) -> int:
    from jobs.clean import clean

    return clean(values)


def _parity(values: Values) -> int:
    from jobs.parity import parity

    return parity(values)


def _manifest(values: Values) -> int:
    from jobs.manifest import manifest

    return manifest(values)


def _weights(values: Values) -> int:
    from jobs.weights import weights

    return weights(values)


def _train(values: Values) -> int:
    from jobs.train import train_model

    return train_model(values)


def _submit(values: Values) -> int:
    from jobs.submit import submit

    return submit(values)


def _nightly(values: Values) -> int:
    from jobs.nightly import nightly

    return nightly(values)


def _export(values: Values) -> int:
    from jobs.export import export

    return export(values)


def _status(values: Values) -> int:
    from jobs.status import status

    return status(values)


def _logs(values: Values) -> int:
    from jobs.logs import logs

    return logs(values)


def _cancel(values: Values) -> int:
    from jobs.control import cancel

    return cancel(values)


def _pause(values: Values) -> int:
    from jobs.control import pause

    return pause(values)


def _resume(values: Values) -> int:
    from jobs.control import resume

    return resume(values)


def _requeue(values: Values) -> int:
    from jobs.requeue import requeue_clips

    return requeue_clips(values)


COMMANDS = {
    "render": Command(summary="Makes a clip with sound for every row of a table of prompts", run=_render),
    "manifest": Command(
        summary="Converts a table of prompts between Parquet and CSV, JSON Lines or JSON, and checks it",
        run=_manifest,
        positional=("source", "target"),
    ),
    "plan": Command(summary="Says what a render would do, need, take and cost, without starting anything", run=_plan),
    "verify": Command(summary="Checks the files of an output against their records", run=_verify, is_check=True),
    "audit": Command(summary="Checks that an output has every clip once, whole and its own", run=_audit, is_check=True),
    "clean": Command(summary="Removes what no record names, and on request what no row has any more", run=_clean),
    "parity": Command(summary="Checks this machine's numbers against recorded ones", run=_parity, is_check=True),
    "weights": Command(
        summary="Checks a model's weights (check PATH), or cuts them once for N ranks (shard PATH TARGET tp=N)",
        run=_weights,
        positional=("what", "path", "target"),
    ),
    "submit": Command(
        summary="Starts a render on a cluster, where it goes on without this machine",
        run=_submit,
        examples={"manifest": "s3://bucket/manifest.parquet", "output": "s3://bucket/output"},
    ),
    "nightly": Command(
        summary="Renders the manifests of an inbox inside a window of hours, night after night",
        run=_nightly,
        examples={"inbox": "s3://bucket/inbox", "output": "s3://bucket/output"},
    ),
    "status": Command(summary="Says how a run stands, from its output alone", run=_status),
    "logs": Command(summary="Prints a run's log, or what was tried for one clip", run=_logs),
    "cancel": Command(summary="Ends the run that is at work on an output, gently", run=_cancel),
    "pause": Command(summary="Lets a run finish what is in flight and wait; nothing new is started there", run=_pause),
    "resume": Command(summary="Lets what was paused go on", run=_resume),
    "requeue": Command(summary="Has clips that failed tried again by the next run", run=_requeue),
    "export": Command(summary="Puts finished clips elsewhere under plain names, with an index", run=_export),
    "train": Command(summary="Trains the small model that comes with it (foal)", run=_train, positional=("name",)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our words has read enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ENVIRONMENT
    return code


def _run(arguments: Sequence[str]) -> int:
    name, *words = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview({name: command.summary for name, command in COMMANDS.items()}))
        return 0
    if name == "--version":
        print(f"happyhorse {version('happyhorse')}")
        return 0
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        meant = f"; did you mean {near}?" if near else ""
        return _complain(f"unknown command {name}{meant} (of {', '.join(COMMANDS)})")
    command = COMMANDS[name]
    if {"-h", "--help"} & set(words):
        print(explain(name, command.summary, positional=command.positional))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is a person's Ctrl-C
    try:
        words = with_examples(words, command.examples or {})
        values = compose_values(name, read_words(words, positional=command.positional), positional=command.positional)
        values |= {TYPED: words} if command.examples else {}
        _configure_logging(job_settings(values).log_level)
        return command.run(values)
    except RenderError as error:
        _complain(str(error))
        return BAD_INPUT if command.is_check else exit_code(error)
    except KeyboardInterrupt:
        _complain("stopped; the same command goes on from here")
        return BAD_INPUT if command.is_check else STOPPED


def exit_code(error: RenderError) -> int:
    if isinstance(error, ConfigError | ManifestError | WeightsError):
        return BAD_INPUT
    if isinstance(error, OutputPaused):
        return STOPPED
    return HELD if isinstance(error, LeaseHeld) else ENVIRONMENT


def _complain(message: str) -> int:
    print(f"happyhorse: {redacted(message)}", file=sys.stderr)
    return BAD_INPUT


def _configure_logging(level: str) -> None:
    """Our own words from `level` up, other libraries' from WARNING up, on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in ("jobs", "pipeline", "model"):
        logging.getLogger(name).setLevel(level)
