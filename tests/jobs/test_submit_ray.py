"""`happyhorse submit cluster=ray` as far as it goes without a cluster; tests/e2e/test_submit.py has one."""

import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from jobs.cli import main
from jobs.ray_jobs import place_there, words_there

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
        ([], 2, "address is None, expected that of Ray's Jobs server: http://HOST:8265"),
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


def test_a_manifest_with_bad_rows_is_not_submitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("prompt,duration\nA red ball,99\n")
    assert main(["manifest", f"{tmp_path}/rows.csv", f"{tmp_path}/rows.parquet", "check=false"]) == 0
    words = [f"manifest={tmp_path}/rows.parquet", f"output={tmp_path}/out", "address=http://127.0.0.1:1"]
    assert main(["submit", *words]) == 2
    assert "row 0, column duration" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
