"""`nightly` as a person meets it: wrong words in one line each, one at a time on an output, objects and unit files."""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.cli import main
from jobs.compose import compose_values
from jobs.nightly import nightly_settings
from jobs.words import read_words
from pipeline.lease.acquiring import acquire
from pipeline.lease.holder import new_run_id
from pipeline.probing import probe
from pipeline.settings import LeaseSettings
from pipeline.store import open_store
from tests.pipeline.kuberay.crds import problems

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "examples" / "nightly"


def words(folder: Path, *more: str) -> list[str]:
    (folder / "inbox").mkdir(exist_ok=True)
    said = {word.partition("=")[0] for word in more}
    own = {"inbox": folder / "inbox", "output": folder / "out", "window": "00:00-24:00"}
    return ["nightly", *(f"{key}={value}" for key, value in own.items() if key not in said), *more]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("window=22-6", "window is '22-6', expected two times such as 22:00-06:00"),
        ("window=06:00-06:00", "which opens and closes at once"),
        ("window=22", "window: got 22, expected text"),
        ("timezone=Europe/Berlun", "timezone is 'Europe/Berlun', expected a name such as Europe/Berlin or UTC"),
        ("must_finish_by=tomorrow", "must_finish_by is 'tomorrow', expected 08:00 or 2026-11-24T08:00"),
        ("budget=-1", "budget is -1, expected 0 or more GPU-hours"),
        ("budget=much", 'budget: got "much", expected a number'),
        ("split=some", 'split: got "some", expected one of long, any'),
        ("poll_s=0", "poll_s is 0, expected more than 0"),
        ("budget_threshold=2", "budget_threshold is 2, expected more than 0 and at most 1"),
        ("webhook=nonsense", "webhook is no address, expected https://HOST/PATH"),
        ("webhook=https://me:secret@host/x", "webhook: https://***@host/x holds a secret"),
        ("hook=/no/such/program", "hook is '/no/such/program', expected a program that can be run"),
        ("inbox=/no/such/folder", "inbox: /no/such/folder is not there or is no folder"),
        ("manifest=a.parquet", "unknown key manifest"),
        ("card=h1000", "card is 'h1000', expected one of"),
        ("dry_run=true", "dry_run=true prints what cluster=kuberay would start"),
    ],
)
def test_wrong_words(tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, said: str) -> None:
    assert main(words(tmp_path, word)) == 2
    err = capsys.readouterr().err
    assert said in err
    assert not (tmp_path / "out").exists()


def test_inbox_and_output_lie_beside_one_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for inbox, output in (("inbox", "inbox/out"), ("inbox", "inbox"), ("out/inbox", "out")):
        (tmp_path / inbox).mkdir(parents=True, exist_ok=True)
        assert main(words(tmp_path, f"inbox={tmp_path / inbox}", f"output={tmp_path / output}")) == 2
        assert "expected an inbox and an output beside one another" in capsys.readouterr().err


@contextmanager
def as_nobody() -> Iterator[None]:
    """root may read everything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_an_inbox_that_may_not_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        typed = words(folder)
        main([*typed, "hook=/no/such/program"])  # imports what nobody may not
        (folder / "inbox").chmod(0)
        with as_nobody():
            code = main(typed)
        (folder / "inbox").chmod(0o700)
    err = capsys.readouterr().err
    assert code == 5
    assert f"happyhorse: cannot list {folder / 'inbox'}: access denied" in err
    assert "Traceback" not in err


def test_a_bucket_that_cannot_be_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)
    endpoint = "storage.endpoint_url=http://127.0.0.1:9"
    typed = words(tmp_path, "inbox=s3://studio/inbox", endpoint, "storage.retries=0", "storage.retry_timeout_s=0.1")
    assert main(typed) == 5
    err = capsys.readouterr().err
    assert "happyhorse: cannot list s3://studio/inbox" in err
    assert "Traceback" not in err


def test_an_empty_inbox_is_a_quiet_night(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, "timezone=Europe/Berlin")) == 0
    assert f"0 manifests in {tmp_path / 'inbox'}" in capsys.readouterr().out


def test_a_bad_manifest_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = words(tmp_path, "settle_s=0")
    pq.write_table(pa.table({"prompt": ["fine", " "]}), tmp_path / "inbox" / "bad.parquet")
    (tmp_path / "inbox" / "worse.parquet").write_bytes(b"no table at all")
    assert main(typed) == 1
    out = capsys.readouterr().out
    assert "bad.parquet is rejected: 1 problem, the first: row 1, column prompt" in out
    assert "worse.parquet is rejected: 1 problem" in out


def test_a_closed_window_leaves_work_for_the_next_night(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    far = (datetime.now().astimezone().hour + 12) % 24
    typed = words(tmp_path, f"window={far:02}:00-{far:02}:30", "settle_s=0")
    pq.write_table(pa.table({"prompt": ["A red circle."]}), tmp_path / "inbox" / "a.parquet")
    assert main(typed) == 3
    out = capsys.readouterr().out
    assert "a.parquet is left: 1 of 1 clip to render: the window is closed" in out
    assert "what is left goes on with the same command, next from" in out


def test_a_second_nightly_leaves_with_four(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = open_store(str(tmp_path / "out" / "_nightly"))
    settings = LeaseSettings(lease_s=3, settle_s=1)
    with acquire(notes, run_id=new_run_id(datetime.now().astimezone()), mode=probe(notes), settings=settings):
        assert main(words(tmp_path, "job.lease_s=3", "job.settle_s=1")) == 4
    err = capsys.readouterr().err
    assert "_nightly is held by run" in err
    assert main(words(tmp_path)) == 0


def test_the_settings_of_a_render_are_those_that_were_typed(tmp_path: Path) -> None:
    typed = words(tmp_path, "media.crf=20", "parallel=tp1", "text.truncate=true", "address=head:6379", "gpus=16")[1:]
    values = {**compose_values("nightly", read_words(typed)), "typed": typed}
    settings = nightly_settings(values)
    assert settings.render.media.crf == 20
    assert settings.render.parallel.tp == settings.target.tp == 1
    assert settings.render.truncate_text
    assert settings.render.cluster.address == "head:6379"
    assert settings.target.gpus == 16
    assert not settings.render.retry.failed  # a clip that gave up is not tried again every night


# Started by something else.


def test_kubernetes_gets_a_cron_job_that_opens_with_the_window(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["window=23:30-05:00", "timezone=Europe/Berlin", "parallel=tp4", "hook=/only/in/the/image"]
    assert main(["nightly", "cluster=kuberay", "dry_run=true", *typed]) == 0
    made: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    assert problems(made) == []
    assert (made["kind"], made["spec"]["schedule"], made["spec"]["timeZone"]) == (
        "RayCronJob",
        "30 23 * * *",
        "Europe/Berlin",
    )
    head = made["spec"]["jobTemplate"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    command = yaml.safe_load(head["env"][0]["value"])
    assert command[0] == "nightly"
    there = {**compose_values("nightly", read_words(command[1:])), "typed": command[1:]}
    settings = nightly_settings(there)
    assert (settings.inbox, settings.window.opens, settings.render.parallel.tp) == ("s3://bucket/inbox", "23:30", 4)
    assert settings.render.cluster.grows


@pytest.mark.parametrize("word", ["forever=true", "window=25:00-06:00", "inbox=/srv/inbox", "dry_run=2"])
def test_what_kubernetes_cannot_do_is_refused(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert (
        main(
            [
                "nightly",
                "cluster=kuberay",
                *([] if "dry" in word else ["dry_run=true"]),
                "output=s3://b/o",
                *([] if "inbox" in word else ["inbox=s3://b/i"]),
                word,
            ]
        )
        == 2
    )
    assert capsys.readouterr().out == ""


def commands_of(text: str) -> list[list[str]]:
    lines = [line.partition("happyhorse nightly ")[2] for line in text.splitlines() if not line.startswith("#")]
    return [shlex.split(line.partition(" >>")[0]) for line in lines if line]


@pytest.mark.parametrize("name", ["crontab", "happyhorse-nightly.service"])
def test_the_examples_say_words_that_are_known(name: str) -> None:
    (typed,) = commands_of((UNITS / name).read_text())
    settings = nightly_settings({**compose_values("nightly", read_words(typed)), "typed": typed})
    assert settings.window.hours == "22:00-06:00"


def test_cron_runs_its_line_with_the_credentials_of_the_file(tmp_path: Path) -> None:
    (line,) = [line for line in (UNITS / "crontab").read_text().splitlines() if line[:1] != "#"]
    schedule, command = line[:9], line[10:]
    assert schedule == "0 * * * *"
    assert "%" not in command  # cron would make a line's end of it
    program = tmp_path / "happyhorse" / ".venv" / "bin" / "happyhorse"
    keys = tmp_path / ".config" / "happyhorse" / "storage.env"
    for path, text in ((program, '#!/bin/sh\necho "$AWS_ACCESS_KEY_ID $1"\n'), (keys, "AWS_ACCESS_KEY_ID=sesame\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    program.chmod(0o755)
    subprocess.run(["/bin/sh", "-c", command], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=True)
    assert (tmp_path / "nightly.log").read_text() == "sesame nightly\n"


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    program = tmp_path / "happyhorse"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for each in UNITS.glob("happyhorse-nightly.*"):
        text = each.read_text().replace("%h/happyhorse/.venv/bin/happyhorse", str(program))
        (tmp_path / each.name).write_text(text)
    done = subprocess.run(
        [analyze, "verify", "--user", *map(str, sorted(tmp_path.glob("happyhorse-nightly.*")))],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
