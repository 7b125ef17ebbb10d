"""`happyhorse submit cluster=ray` as far as it goes without a cluster; tests/e2e/test_submit.py has one."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import main
from jobs.compose import compose_values
from jobs.elsewhere import TYPED
from jobs.ray_jobs import place_there, words_there
from jobs.settings import run_settings
from jobs.submit import OWN, asked_mark
from jobs.words import read_words
from tests.e2e.runs import write_manifest

PLACES = ["manifest=s3://studio/tonight.parquet", "output=s3://studio/tonight"]


def test_a_dry_run_prints_what_would_be_sent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    words = ["parallel=tp4", "where=priority > 3", "pass_env=[AWS_SECRET_ACCESS_KEY]", "name=evening"]
    assert main(["submit", *PLACES, "dry_run=true", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    sent = yaml.safe_load(out)
    assert sent["submission_id"].startswith("happyhorse-evening-")
    assert sent["submission_id"].endswith(f"{datetime.now(UTC):%Y%m%d}")
    assert sent["entrypoint"] == (
        "python -m jobs render manifest=s3://studio/tonight.parquet output=s3://studio/tonight "
        "parallel=tp4 'where=priority > 3' cluster=ray"
    )
    assert sent["environment"] == ["AWS_SECRET_ACCESS_KEY"]
    assert "do-not-tell" not in out


def test_places_of_this_machine_are_said_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert words_there(["manifest=a.parquet,s3://b/c", "output=out", "weights=builtin", "check=false"]) == [
        f"manifest={tmp_path}/a.parquet,s3://b/c",
        f"output={tmp_path}/out",
        "weights=builtin",
        "cluster=ray",
    ]
    assert place_there("/there") == "/there"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "address is missing, expected that of Ray's Jobs server: http://HOST:8265"),
        (["address=10.0.0.1:6379"], 2, "address is '10.0.0.1:6379', expected that of Ray's Jobs server"),
        (["address=http://127.0.0.1:{free}"], 5, "did not take the job"),
        (["address=http://127.0.0.1:{free}", "pass_env=[NOT_SET_ANYWHERE]"], 2, "NOT_SET_ANYWHERE, which is not set"),
    ],
)
def test_what_cannot_be_submitted_is_said_in_one_line(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert main(["submit", *PLACES, "check=false", *(word.format(free=free) for word in words)]) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "address is missing, expected"), (["address=http://127.0.0.1:9", "pass_env=[NOT_SET]"], "names NOT_SET")],
)
def test_what_is_missing_here_is_said_before_the_table_is_read(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert main(["submit", "manifest=nowhere.parquet", "output=o", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "nowhere.parquet" not in err


@contextmanager
def jobs_server_of(ray_version: str) -> Iterator[tuple[str, list[str]]]:
    """Its address, and what was asked of it. A real Ray of another version would have to be installed beside ours; this
    one answers its first question, /api/version, as that does, and refuses all others.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            said = {"version": "4", "ray_version": ray_version, "ray_commit": "0" * 40, "session_name": "session_x"}
            body = json.dumps(said).encode()
            self.send_response(200 if self.path == "/api/version" else 500)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def test_a_cluster_with_another_ray_is_named_with_both_versions(capsys: pytest.CaptureFixture[str]) -> None:
    with jobs_server_of("2.59.0") as (address, asked):
        assert main(["submit", *PLACES, "check=false", f"address={address}"]) == 5
    err = capsys.readouterr().err
    assert err == (
        f"happyhorse: the cluster at {address} has Ray 2.59.0, and here is {version('ray')}: "
        f"install ray==2.59.0 here, or give the cluster {version('ray')}\n"
    )
    assert set(asked) == {"/api/version"}


@pytest.mark.parametrize("name", ["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"])
def test_the_address_that_was_typed_counts(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own client would go where its variables lead."""
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    with jobs_server_of("2.59.0") as (address, _):
        main(["submit", *PLACES, "check=false", f"address={address}"])
    assert f"the cluster at {address} has Ray 2.59.0" in capsys.readouterr().err
    assert os.environ[name] == "http://127.0.0.1:9"


def test_the_mark_of_a_job_is_another_when_the_table_or_a_setting_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = write_manifest(tmp_path / "rows.parquet", [{"prompt": "A red circle."}])

    def mark(*words: str, manifest: Path | str = table) -> str:
        typed = [f"manifest={manifest}", "output=out", *words]
        values = compose_values("submit", read_words(typed)) | {TYPED: typed}
        settings = run_settings({key: value for key, value in values.items() if key not in OWN} | {"address": None})
        return asked_mark(values, settings, reads=True)

    first = mark("media.crf=20", "parallel=tp1")
    assert mark("parallel=tp1", "media.crf=20", manifest="rows.parquet") == first, "said in other words"
    assert mark("parallel=tp1", "media.crf=20", "address=http://other:8265", "check=false") == first
    assert mark("parallel=tp1") != first
    write_manifest(table, [{"prompt": "A red circle.", "shot": 7}])
    assert mark("media.crf=20", "parallel=tp1") != first


def test_a_manifest_with_bad_rows_is_not_submitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("prompt,duration\nA red ball,99\n")
    assert main(["manifest", f"{tmp_path}/rows.csv", f"{tmp_path}/rows.parquet", "check=false"]) == 0
    words = [f"manifest={tmp_path}/rows.parquet", f"output={tmp_path}/out", "address=http://127.0.0.1:1"]
    assert main(["submit", *words]) == 2
    assert "row 0, column duration" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
