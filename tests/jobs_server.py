"""A real Ray head with its Jobs server, with or without tokens, on this machine alone."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

BIN = Path(sys.executable).parent
PATIENT = {"RAY_raylet_start_wait_time_s": "120"}  # on a busy machine; Ray itself gives a node 30 s
START_S, STOP_S = 120.0, 20.0


@dataclass(frozen=True)
class JobsServer:
    address: str  # http://HOST:PORT
    environment: Mapping[str, str]  # what whoever submits needs


@contextmanager
def jobs_server(*, with_token: bool) -> Iterator[JobsServer]:
    """On this machine alone, with six logical CPUs."""
    with tempfile.TemporaryDirectory() as folder:
        access = _access(Path(folder), with_token=with_token)
        variables = access | {"PATH": f"{BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
        with jobs_head("127.0.0.1", num_cpus=6, variables=variables) as (_, address):
            yield JobsServer(address=address, environment=access)


@contextmanager
def jobs_head(host: str, *, num_cpus: int, variables: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """A head with that address; other nodes can join at the port. (port, http://HOST:PORT of the Jobs server)"""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # short: it holds sockets
        gcs, dashboard, client, agent = _free_ports(4, host)
        command = [f"{BIN}/ray", "start", "--head", "--block", f"--num-cpus={num_cpus}"]
        command += ["--object-store-memory=150000000", "--include-dashboard=true", f"--dashboard-host={host}"]
        command += [f"--node-ip-address={host}", f"--port={gcs}", f"--dashboard-port={dashboard}"]
        command += [f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"]
        command += [f"--temp-dir={folder}/r"]
        options: dict[str, Any] = {
            "env": {**os.environ, **PATIENT, **variables},
            "cwd": folder,
            "start_new_session": True,
        }
        with (
            Path(folder, "head.log").open("w+b") as log,
            subprocess.Popen(command, stdout=log, stderr=log, **options) as head,
        ):
            try:
                address = f"http://{host}:{dashboard}"
                _wait(f"{address}/api/version", head, log)
                yield gcs, address
            finally:
                _end(head)


def _access(folder: Path, *, with_token: bool) -> dict[str, str]:
    if not with_token:
        return {"RAY_AUTH_MODE": "disabled"}
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}


def _free_ports(count: int, host: str) -> list[int]:
    """Outside of Ray's own range for workers, 10002 to 19999."""
    found: list[int] = []
    with suppress(StopIteration):
        for port in range(24_000 + os.getpid() % 1000 * 8, 60_000):
            with suppress(OSError), socket.create_server((host, port)):
                found.append(port)
            if len(found) == count:
                break
    return found


def _wait(address: str, head: "subprocess.Popen[Any]", log: BinaryIO) -> None:
    """Until somebody answers, were it that a token is missing."""
    ends_at = time.monotonic() + START_S
    while time.monotonic() < ends_at:
        if head.poll() is not None:
            log.seek(0)
            said = log.read().decode(errors="replace")[-2000:]
            raise AssertionError(f"the Ray head left with {head.returncode}:\n{said}")
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no Jobs server at {address} after {START_S:g} s")


def _end(head: "subprocess.Popen[Any]") -> None:
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(STOP_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
