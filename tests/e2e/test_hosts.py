"""One manifest on three hosts: groups on different ones, our code sent along, output on real S3, one host cut off."""

import json
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

from pipeline.store import StorageSettings, open_store
from tests import hosts
from tests.e2e.runs import BIN, QUICK, Caller, said, write_manifest
from tests.hosts import HERE, Host
from tests.jobs_server import PATIENT, jobs_head
from tests.s3_server import S3Server

pytestmark = [pytest.mark.e2e, pytest.mark.s3, pytest.mark.cluster, pytest.mark.slow]
LONGEST_S = 300
NOTICED_SOON = {  # a host that does not answer: after some ten to thirty seconds instead of a minute
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "20",
}
ROWS = [
    {"clip_id": f"clip-{n:02}", "prompt": "A red circle stays still on a white background.", "duration": 3, "seed": n}
    for n in range(16)
]


Found = TypeVar("Found")


@dataclass(frozen=True)
class Hosts:
    jobs: str  # address of the Jobs server
    by_address: dict[str, Host]  # without the head, which we are
    environment: dict[str, str]

    def ask(self, what: str) -> list[dict[str, Any]]:
        """Of Ray's own listing: nodes, or actors."""
        with urllib.request.urlopen(f"{self.jobs}/api/v0/{what}?limit=1000", timeout=30) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]["result"]
        return found

    def alive(self) -> set[str]:
        return {node["node_ip"] for node in self.ask("nodes") if node["state"] == "ALIVE"}

    def working(self) -> set[str]:
        """Addresses of hosts with living ranks."""
        address_of = {node["node_id"]: node["node_ip"] for node in self.ask("nodes")}
        ranks = [each for each in self.ask("actors") if (each["class_name"], each["state"]) == ("RankWorker", "ALIVE")]
        return {address_of[each["node_id"]] for each in ranks}


@pytest.fixture
def three_hosts(swift_server: S3Server, tmp_path: Path) -> Iterator[Hosts]:
    """We are the head, with two CPUs; the two others have three each. Every one has room for one group."""
    hosts.skip_without_namespaces()
    with ExitStack() as stack:
        stack.enter_context(hosts.network())
        port = urlsplit(swift_server.endpoint_url).port
        assert port
        swift = f"http://{HERE}:{stack.enter_context(hosts.reachable_from_hosts(port))}"
        environment = swift_server.environment | {"AWS_ENDPOINT_URL": swift, "RAY_AUTH_MODE": "disabled"}
        there = environment | {"PATH": f"{BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
        gcs, address = stack.enter_context(jobs_head(HERE, num_cpus=2, variables=there | NOTICED_SOON))
        node = hosts.ray_start("--num-cpus=3", "--node-ip-address={address}", f"--address={HERE}:{gcs}")
        found = Hosts(address, {}, environment)
        for number in (1, 2):  # one after the other: each takes all of a small machine for some seconds
            log = tmp_path / f"host-{number}.log"
            started = stack.enter_context(hosts.host(number, node, log=log, environment=there | PATIENT))
            found.by_address[started.address] = started
            wait_for(lambda: found.alive() == {HERE, *found.by_address}, f"host {number}", by=started)
        yield found


def wait_for(what: Callable[[], Found | None], told: str, *, by: Host | None = None) -> Found:
    """`by`: a host that is to be up meanwhile."""
    ends_at, error = time.monotonic() + LONGEST_S, ""
    while time.monotonic() < ends_at:
        if by is not None:
            by.assert_is_up()
        try:
            found = what()
        except (OSError, ValueError) as problem:  # a busy Jobs server hangs up, or says half of it
            found, error = None, f": {problem}"
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"{told} has not come in {LONGEST_S} s{error}")


def test_a_host_that_is_cut_off_costs_nothing_but_time(
    three_hosts: Hosts, swift_s3: str, caller: Caller, tmp_path: Path
) -> None:
    manifest, output = write_manifest(tmp_path / "manifest.parquet", ROWS), f"{swift_s3}/out"
    store, run = open_store(output, StorageSettings()), partial(caller.run, variables=three_hosts.environment)
    words = [f"output={output}", f"address={three_hosts.jobs}", "parallel.groups=2", "cluster.num_finishers=1"]
    submitted = run("submit", f"manifest={manifest}", *words, *QUICK)
    assert submitted.returncode == 0, said(submitted)

    def victim() -> Host | None:
        """One with a group, once a second clip is done and the two groups are on different hosts."""
        working = three_hosts.working() if len(list(store.list("records"))) >= 2 else set()
        found = sorted(working & three_hosts.by_address.keys())
        return three_hosts.by_address[found[0]] if len(working) == 2 else None

    cut = wait_for(victim, "two groups at work on different hosts")
    cut.cut_off()
    values = wait_for(lambda: ended(run("status", f"output={output}", "format=json").stdout), "the end of the run")
    assert values["states"]["SUCCEEDED"] == len(ROWS), values
    audited = run("audit", f"output={output}", f"manifest={manifest}")
    assert audited.returncode == 0, said(audited)
    told = run("logs", f"output={output}").stdout
    # By Ray, whose host it is (preempted), or by our own watch over steps (hung), whichever looks first.
    assert re.search(rf"lost \S+ \((preempted|hung)\): .*\bon {re.escape(cut.address)}\b", told), told


def ended(status: str) -> dict[str, Any] | None:
    values: dict[str, Any] = json.loads(status)
    return values if values["ended_at"] else None
