"""Connects to Ray, or starts one of our own on this machine, and says what it has."""

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray

from pipeline.crews.nodes import look
from pipeline.errors import ClusterError
from pipeline.settings import ClusterSettings, ParallelSettings
from pipeline.signals import children_apart, heard_at_last

LOCAL_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # it listens on this machine alone; a token file of another Ray must not matter
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do by itself one day; it warns until then
}
KNOCK_S = 10.0
log = logging.getLogger(__name__)


@contextmanager
def connect(settings: ClusterSettings, *, parallel: ParallelSettings, kinds: int = 1) -> Iterator[None]:
    """A Ray to work with: the one that this process has already, the one at the address, or one of our own.

    `kinds`: of groups, two where super-resolution has its own.

    What was started here ends here; what was there before stays as it was. Raises ClusterError.
    """
    if ray.is_initialized():
        yield
        return
    began = time.monotonic()
    try:
        with heard_at_last():
            if settings.address is None:
                with children_apart():
                    _start_local(settings, parallel, kinds)
            else:
                _knock(settings.address)
                ray.init(address=settings.address, log_to_driver=False, logging_level=logging.ERROR)
    except SystemExit as error:  # while it starts, Ray answers SIGTERM by leaving with 15 and without a word
        raise KeyboardInterrupt from error
    except Exception as error:  # a node that is slow to start is a bare Exception of Ray's
        raise ClusterError(_told(error, settings.address or "this machine")) from error
    log.info("Ray is ready after %.1f s", time.monotonic() - began)
    try:
        yield
    finally:
        ray.shutdown()


def _told(error: Exception, where: str) -> str:
    """In one line; Ray names both versions where they differ, its own or Python's."""
    before, trace, after = str(error).partition("Traceback (most recent call last):")  # of its server's
    said = " ".join((before + after.strip().rpartition("\n")[2] if trace else before).split())
    if said.startswith("Version mismatch"):
        return f"the Ray cluster at {where} works with its own version alone: {said}"
    if "resolve node to connect to" in said:
        return f"this machine is no node of the Ray cluster at {where}: run it on one, or say address=ray://HOST:10001"
    return f"no Ray cluster at {where}: {said}"


def _knock(address: str) -> None:
    """Raises OSError where nobody listens at host:port; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


def _start_local(settings: ClusterSettings, parallel: ParallelSettings, kinds: int) -> None:
    for name, value in LOCAL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray.init(
        address="local",
        num_cpus=_local_cpus(settings, parallel, kinds),
        object_store_memory=settings.object_store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _local_cpus(settings: ClusterSettings, parallel: ParallelSettings, kinds: int) -> int:
    """Logical ones: as many as there are actors, whatever the machine has, for they take turns on a laptop."""
    said = (parallel.groups, parallel.enlarging_groups)[:kinds]
    num_groups = sum(count or 1 for count in said)
    if None in said and settings.device != "cpu":
        import torch

        num_groups = max(torch.cuda.device_count() // parallel.ranks, num_groups)
    return num_groups * parallel.ranks * parallel.threads_per_rank + settings.num_encoders + settings.num_finishers


def node_resources() -> list[Mapping[str, float]]:
    """CPUs and GPUs of each living node that stays."""
    nodes = look()
    return list((nodes.staying or nodes.alive).values())
