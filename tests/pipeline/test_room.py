"""How many groups a cluster holds beside encoders and finishers, and whether they have cards: plain numbers, no Ray."""

from typing import Any

import pytest

from model.placing import Placing
from pipeline.errors import ConfigError
from pipeline.room import choose_device, count_groups
from pipeline.settings import ClusterSettings, ParallelSettings


@pytest.mark.parametrize(
    ("nodes", "tp", "device", "placement", "count"),
    [
        ([{"CPU": 12.0, "GPU": 8.0}] * 2, 4, "cuda", "STRICT_PACK", 4),
        ([{"CPU": 8.0, "GPU": 8.0}], 1, "cuda", "STRICT_PACK", 6),  # encoder and finisher want a CPU each
        ([{"CPU": 8.0, "GPU": 3.0}] * 2, 2, "cuda", "STRICT_PACK", 2),
        ([{"CPU": 8.0, "GPU": 3.0}] * 2, 2, "cuda", "PACK", 3),
        ([{"CPU": 6.0}], 2, "cpu", "STRICT_PACK", 2),
        ([{"CPU": 1.0}], 8, "cpu", "STRICT_PACK", 1),
    ],
)
def test_groups_fill_the_cluster(nodes: Any, tp: int, device: str, placement: Any, count: int) -> None:
    settings = ClusterSettings(placement=placement)
    assert count_groups(ParallelSettings(tp=tp), settings, device=device, nodes=nodes) == count


def test_cards_of_encoders_and_finishers_are_no_groups() -> None:
    settings, nodes = ClusterSettings(num_encoders=2), [{"CPU": 32.0, "GPU": 8.0}, {"CPU": 32.0, "GPU": 4.0}]
    counts = [
        count_groups(ParallelSettings(tp=2), settings, device="cuda", nodes=nodes, placing=placing)
        for placing in (
            Placing(),
            Placing(text="cards"),
            Placing(text="cards", text_cards=2),
            Placing(decode="card"),
            Placing(text="cards", decode="card"),
        )
    ]
    assert counts == [6, 5, 4, 5, 4]


def test_cards_that_will_come_are_as_good_as_cards() -> None:
    """An autoscaler starts the nodes that placement groups ask for; there are none before."""
    nodes = [{"CPU": 0.0}]
    assert choose_device(ClusterSettings(device="cuda", grows=True), nodes) == "cuda"
    assert choose_device(ClusterSettings(device="auto", grows=True), nodes) == "cpu"
    with pytest.raises(ConfigError, match=r"cluster\.device is cuda, but no node"):
        choose_device(ClusterSettings(device="cuda"), nodes)
