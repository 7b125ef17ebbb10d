"""Who holds a lease: a process, told so that others on its host can see whether it still lives."""

import getpass
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

PROC = Path("/proc")
DEAD = "ZX"  # states of a process that was killed and that nobody has waited for yet


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A run and its process."""

    run_id: str
    user: str
    host: str
    boot: str | None  # of this start of the machine, and which processes its pids are of; None: cannot be told
    pid: int
    started: int | None  # in clock ticks since the boot: pids are used again
    since: str  # UTC, by the store's clock; the same when the lease ran out and the same process took it again

    def __str__(self) -> str:
        return f"run {self.run_id} ({self.user} on {self.host}, process {self.pid}, since {self.since})"


def new_run_id(now: datetime) -> str:
    """Sorts by time; no two are alike."""
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def this_process(run_id: str, *, clock_offset_s: float = 0.0) -> Holder:
    stat = _stat(os.getpid())
    return Holder(
        run_id=run_id,
        user=user_name(),
        host=socket.gethostname(),
        boot=_boot(),
        pid=os.getpid(),
        started=stat[1] if stat else None,
        since=(datetime.now(UTC) + timedelta(seconds=clock_offset_s)).isoformat(timespec="seconds"),
    )


def is_gone(holder: Holder) -> bool:
    """Whether it was a process of this host and boot that is no more. False where that cannot be told."""
    if holder.boot is None or (holder.host, holder.boot) != (socket.gethostname(), _boot()):
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's, and perhaps hidden from us
    stat = _stat(holder.pid)
    return stat is not None and (stat[0] in DEAD or stat[1] != holder.started)


def since_boot() -> float:
    """Seconds, those included in which the machine slept: others have counted them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What holding a lease takes of the machine; tests bring a clock of their own."""

    clock: Callable[[], float] = since_boot
    sleep: Callable[[float], None] = time.sleep
    is_gone: Callable[[Holder], bool] = is_gone


def _boot() -> str | None:
    """The same for two processes only if a pid means the same to both: containers of one machine have their own."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        spaces = [
            os.readlink(PROC / "self/ns" / name) for name in ("pid", "time") if (PROC / "self/ns" / name).exists()
        ]
    except OSError:
        return None
    return " ".join([boot, *spaces]) if spaces else None


def _stat(pid: int) -> tuple[str, int] | None:
    """State and start of a process; None if it cannot be looked at."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()  # its name may hold anything
    except OSError:
        return None
    return fields[0], int(fields[19])


def user_name() -> str:
    """Of whoever runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
