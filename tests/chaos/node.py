"""`python -m tests.chaos.node head|join GCS ADDRESS CPUS STORE_BYTES`: one Ray node, for as long as this process lives.

`ray start --block` would do, were it not for its fixed ports, which two nodes of one machine cannot both have.
"""

import os
import sys
from contextlib import suppress
from typing import Any

import psutil
from ray._private.node import Node
from ray._private.parameter import RayParams


def main(role: str, gcs: str, address: str, cpus: str, store_bytes: str) -> None:
    ports = {"min_worker_port": 0, "max_worker_port": 0, "node_manager_port": 0}
    room = {"num_cpus": int(cpus), "num_gpus": 0, "object_store_memory": int(store_bytes)}
    own: dict[str, Any] = {"gcs_address": gcs, "redis_address": gcs, "dashboard_agent_listen_port": None}
    if role == "head":
        own = {"gcs_server_port": int(gcs.rpartition(":")[2]), "include_dashboard": False}
    params: Any = RayParams()
    params.update(node_ip_address=address, include_log_monitor=False, **ports, **room, **own)
    try:
        Node(params, head=role == "head", shutdown_at_exit=False, spawn_reaper=True)
    except Exception as error:  # noqa: BLE001  # it gives up after 30 s; on a busy machine its raylet takes longer
        print(error, flush=True)
        if not any(each.name() == "raylet" and each.status() != "zombie" for each in psutil.Process().children()):
            sys.exit(1)  # and sometimes it does not come up at all
    with suppress(ChildProcessError):
        while True:
            os.wait()  # a raylet that nobody has waited for counts as alive to its workers, which stay


if __name__ == "__main__":
    main(*sys.argv[1:])
