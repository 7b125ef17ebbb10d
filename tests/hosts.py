"""Several hosts on this machine: network namespaces with addresses of their own on one bridge, which root can make.

A host has process ids, a /dev/shm and a folder for temporary files of its own, and sees none of our sources, only what
is installed beside them. Taking its link down is a real partition.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("conf", "jobs", "model", "pipeline")
NET = "10.77.3"
HERE = f"{NET}.1"
BRIDGE = "hh-bridge"
STOP_S = 10.0


@dataclass(frozen=True)
class Host:
    name: str
    address: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def assert_is_up(self) -> None:
        """With the end of what its command said, where that has ended."""
        said = self.log.read_text(errors="replace")[-2000:]
        assert self.process.poll() is None, f"{self.name} left with {self.process.returncode}:\n{said}"

    def cut_off(self) -> None:
        """Nothing comes in or out any more."""
        _ip("link", "set", f"{self.name}-out", "down")


def skip_without_namespaces() -> None:
    """Skips a test where nobody wants them, or this machine cannot or does not let us make hosts."""
    if "HOSTS" not in os.environ:
        pytest.skip("three hosts take a minute or two of a quiet machine: make hosts")
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("hosts of their own want root, ip and unshare")
    tried = subprocess.run(["unshare", "-m", "-n", "-p", "-f", "--mount-proc", "true"], check=False)
    if tried.returncode:
        pytest.skip("this machine does not permit namespaces")


@contextmanager
def network() -> Iterator[None]:
    """A bridge on which we are HERE."""
    _ip("link", "add", BRIDGE, "type", "bridge")
    try:
        _ip("addr", "add", f"{HERE}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        yield
    finally:
        _ip("link", "del", BRIDGE)


@contextmanager
def host(number: int, command: Sequence[str], *, log: Path, environment: dict[str, str]) -> Iterator[Host]:
    """Runs `command`, in which {address} stands for its own, until the end."""
    name, address = f"hh-{number}", f"{NET}.{10 + number}"
    with ExitStack() as stack:
        _plug_in(name, address, stack)
        said = [word.format(address=address) for word in command]
        inside = ["ip", "netns", "exec", name, "unshare", "-m", "-u", "-p", "-f", "--mount-proc", "--kill-child"]
        process = stack.enter_context(
            subprocess.Popen(
                [*inside, "sh", "-c", _script(name), "sh", *said],
                env=os.environ | environment,
                stdout=stack.enter_context(log.open("wb")),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
        try:
            yield Host(name, address, process, log)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # --kill-child takes all of the host along
            process.wait(STOP_S)


def _plug_in(name: str, address: str, stack: ExitStack) -> None:
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "del", name)
    _ip("link", "add", f"{name}-in", "netns", name, "type", "veth", "peer", "name", f"{name}-out")
    stack.callback(_ip, "link", "del", f"{name}-out")  # a namespace goes when its last process is gone: too late
    _ip("-n", name, "addr", "add", f"{address}/24", "dev", f"{name}-in")
    for link in ("lo", f"{name}-in"):
        _ip("-n", name, "link", "set", link, "up")
    _ip("link", "set", f"{name}-out", "master", BRIDGE)
    _ip("link", "set", f"{name}-out", "up")


def _script(name: str) -> str:
    """What a host does before its command: folders of its own over the shared ones, ours hidden."""
    lines = [f"hostname {name}", "mount -t tmpfs shm /dev/shm"]
    if ROOT.is_relative_to("/tmp"):  # a checkout there, with the Python that runs us, is to be seen all the same
        lines += [f"mount --bind '{ROOT}' /mnt", "mount -t tmpfs tmp /tmp", f"mkdir -p '{ROOT}'"]
        lines += [f"mount --move /mnt '{ROOT}'"]
    else:
        lines += ["mount -t tmpfs tmp /tmp"]
    lines += [f"mount -t tmpfs hidden '{ROOT / folder}'" for folder in SOURCES]
    return " && ".join([*lines, 'exec "$@"'])


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


@contextmanager
def reachable_from_hosts(port: int) -> Iterator[int]:
    """A port at HERE that leads to one of this machine's own."""
    with socket.create_server((HERE, 0)) as server:
        threading.Thread(target=_forward, args=(server, port), daemon=True).start()
        yield server.getsockname()[1]


def _forward(server: socket.socket, port: int) -> None:
    with suppress(OSError):  # it is closed at the end
        while True:
            there, _ = server.accept()
            threading.Thread(target=_connect, args=(there, port), daemon=True).start()


def _connect(there: socket.socket, port: int) -> None:
    with there, suppress(OSError), socket.create_connection(("127.0.0.1", port)) as here:
        back = threading.Thread(target=_pump, args=(here, there), daemon=True)
        back.start()
        _pump(there, here)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Until one side ends; then the other hears of it."""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def ray_start(*words: str) -> list[str]:
    """`ray start` as this Python has it."""
    return [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory=150000000", *words]
