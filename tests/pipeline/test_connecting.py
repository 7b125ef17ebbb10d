"""Ray that does not come up is one message and an exit code, whatever it raises."""

import platform
import re
import socket

import pytest
import ray
from ray._private.utils import check_version_info

from pipeline.cluster import connect
from pipeline.errors import ClusterError
from pipeline.settings import ClusterSettings, ParallelSettings

TOO_SLOW = "The current node timed out during startup.\nThis could happen because some of the raylet failed"


def test_a_node_that_is_too_slow_to_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine must be very busy for that, so Ray's answer is given for it."""

    def init(**settings: object) -> None:
        raise Exception(TOO_SLOW)

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(ClusterError, match=r"^no Ray cluster at this machine: The current node timed out during .*$"),
        connect(ClusterSettings(), parallel=ParallelSettings()),
    ):
        raise AssertionError("there is no Ray")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (  # as Ray's client says it, at ray://HOST:PORT
            'Failure from server:\nTraceback (most recent call last):\n  File "x.py", line 3\nGone: pid 7\n',
            "no Ray cluster at auto: Failure from server: Gone: pid 7",
        ),
        (
            "No node info found matching attributes: '' when trying to resolve node to connect to.",
            "this machine is no node of the Ray cluster at auto: run it on one, or say address=ray://HOST:10001",
        ),
    ],
)
def test_what_ray_says_is_put_in_one_line(error: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**settings: object) -> None:
        raise RuntimeError(error)

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(ClusterError, match=f"^{re.escape(said)}$"),
        connect(ClusterSettings(address="auto"), parallel=ParallelSettings()),
    ):
        raise AssertionError("there is no Ray")


@pytest.mark.parametrize("changed", [{"ray_version": "2.59.0"}, {"python_version": "3.10.13"}])
def test_a_cluster_of_another_version_is_named_with_both(
    changed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own comparison, of what such a cluster says of itself."""
    ray_version, python_version = ray.__version__, platform.python_version()
    there = {"ray_version": ray_version, "python_version": python_version} | changed

    def init(**settings: object) -> None:
        check_version_info(there, "node 10.0.0.9")

    monkeypatch.setattr(ray, "init", init)
    with (
        socket.create_server(("127.0.0.1", 0)) as head,
        pytest.raises(ClusterError) as caught,
        connect(ClusterSettings(address=f"127.0.0.1:{head.getsockname()[1]}"), parallel=ParallelSettings()),
    ):
        raise AssertionError("there is no Ray")
    told = str(caught.value)
    assert told.startswith("the Ray cluster at 127.0.0.1:")
    assert f"started with: Ray: {there['ray_version']} Python: {there['python_version']} This process" in told
    assert told.endswith(f"started with: Ray: {ray_version} Python: {python_version}")
