"""Ray that does not come up is one message and an exit code, whatever it raises."""

import pytest
import ray

from pipeline.cluster import ClusterError, connect
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
