"""Fixtures with S3 servers on this machine: moto (a mock, quick) and OpenStack Swift (a real server, in a process).

Each test gets a bucket of its own and an environment with credentials and endpoint, as a user would have.
"""

import fcntl
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SWIFT_VENV = ROOT / ".venv-swift"  # Swift's dependencies are old; it gets an environment of its own, made once
SWIFT_PACKAGES = ("swift==2.38.3", "pyeclib==1.8.0", "eventlet==0.41.3", "setuptools<81")
INSTALL_TIMEOUT_S = 300
START_TIMEOUT_S = 30
STRAYS = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3")


@dataclass(frozen=True)
class S3Server:
    endpoint_url: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it; older servers want checksums only where they are required."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def create_bucket(self, name: str | None = None) -> str:
        """A new bucket's address; without a name it gets one of its own."""
        import boto3  # here, because every test session loads this file and most need no S3
        from botocore.config import Config

        name = name or f"test-{secrets.token_hex(6)}"
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(request_checksum_calculation="when_required", response_checksum_validation="when_required"),
        )
        client.create_bucket(Bucket=name)
        client.close()
        return f"s3://{name}"


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line a request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Server(f"http://{host}:{port}", "testing", "testing")
    server.stop()


@pytest.fixture(scope="session")
def swift_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server that checks signatures. Skips, saying so, where its packages cannot be installed."""
    with running_swift(tmp_path_factory.mktemp("swift")) as server:
        yield server


@contextmanager
def running_swift(folder: Path, *, ahead_s: float = 0.0) -> Iterator[S3Server]:
    """The real server, its data in `folder`, which it needs for itself; its clock may be ahead of ours."""
    python = _swift_python()
    port = _free_port()
    program, clock = str(ROOT / "tests" / "swift_server.py"), [str(ahead_s)] if ahead_s else []
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(
            [str(python), "-W", "ignore", program, str(port), str(folder / "data"), *clock],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(process, folder / "output.log")
        yield S3Server(f"http://127.0.0.1:{port}", "test:tester", "testing")
    finally:
        process.kill()
        process.wait(timeout=10)


@pytest.fixture
def moto_s3(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket on the mock server, reachable from the environment."""
    return _enter(moto_server, monkeypatch)


@pytest.fixture
def swift_s3(swift_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket on the real server, reachable from the environment."""
    return _enter(swift_server, monkeypatch)


def _enter(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in STRAYS:
        monkeypatch.delenv(name, raising=False)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.create_bucket()


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while "READY" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Swift did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.05)


def _swift_python() -> Path:
    """The interpreter that has Swift; installs it if this is the first time, one session at a time."""
    ready = SWIFT_VENV / ".ready"
    wanted = "\n".join(SWIFT_PACKAGES)
    with (ROOT / ".venv-swift.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists() or ready.read_text() != wanted:
            _install_swift()
            ready.write_text(wanted)
    return SWIFT_VENV / "bin" / "python"


def _install_swift() -> None:
    uv = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    if not Path(uv).exists():
        pytest.skip("no uv to install OpenStack Swift with: run the tests through `make test`")
    environment = {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "").replace(" ", ",")} | os.environ
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(SWIFT_VENV)],
        [uv, "pip", "install", "--quiet", "--python", str(SWIFT_VENV), *SWIFT_PACKAGES],
    ):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
        if done.returncode:
            pytest.skip(f"OpenStack Swift cannot be installed, its tests are left out: {done.stderr.strip()[-500:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
