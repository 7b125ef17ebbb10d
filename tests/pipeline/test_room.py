"""How many groups a cluster holds beside encoders and finishers, and whether they have cards: plain numbers, no Ray."""

from typing import Any

import pytest

from model.placing import Placing
from pipeline.errors import ConfigError
from pipeline.room import choose_device, count_groups, crews_wanted, wanted
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


ENCODER_OF_4 = Placing(text="cards", text_cards=4)


@pytest.mark.parametrize(
    ("nodes", "placing", "tp", "said"),
    [
        (
            [{"CPU": 16.0, "GPU": 2.0}] * 4,
            ENCODER_OF_4,
            2,
            "placing.text_cards: one encoder wants 4 GPUs of one node, expected at most 2, which is all that one has",
        ),
        (
            [{"CPU": 16.0, "GPU": 2.0}] * 4,
            Placing(),
            4,
            "parallel.tp: one group wants 4 GPUs of one node, expected at most 2, which is all that one has",
        ),
        (
            [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0}],
            Placing(decode="card"),
            2,
            "no room for 1 group of 2 x 1 CPU and 1 GPU beside 1 encoder of 1 CPU, 1 finisher of 1 CPU and 1 GPU: "
            "there is 1 node of 16 CPU and 2 GPU, 1 node of 8 CPU",
        ),
        (
            [{"CPU": 2.0, "GPU": 2.0}],
            Placing(),
            2,
            "no room for 1 group of 2 x 1 CPU and 1 GPU beside 1 encoder of 1 CPU, 1 finisher of 1 CPU: there is 1 "
            "node of 2 CPU and 2 GPU",
        ),
    ],
)
def test_what_can_never_be_placed_is_said_and_not_waited_for(nodes: Any, placing: Placing, tp: int, said: str) -> None:
    parallel = ParallelSettings(tp=tp)
    with pytest.raises(ConfigError) as caught:
        count_groups(parallel, ClusterSettings(), device="cuda", nodes=nodes, placing=placing)
    assert str(caught.value) == said
    grows = ClusterSettings(grows=True)
    assert count_groups(parallel, grows, device="cuda", nodes=nodes, placing=placing) == 1, "more nodes will come"


def test_a_group_that_may_straddle_nodes_takes_what_single_cards_are_left() -> None:
    nodes, placing = [{"CPU": 8.0, "GPU": 4.0}] * 2, Placing(text="cards", text_cards=3)
    counts = {
        packing: count_groups(
            ParallelSettings(tp=2), ClusterSettings(placement=packing), device="cuda", nodes=nodes, placing=placing
        )
        for packing in ("STRICT_PACK", "PACK")
    }
    assert counts == {"STRICT_PACK": 2, "PACK": 2}
    assert (
        wanted(ParallelSettings(tp=5), ClusterSettings(placement="PACK"), device="cuda", placing=placing).room(nodes)
        == 1
    )


def test_cards_are_counted_by_who_has_them() -> None:
    placing = Placing(text="cards", text_cards=2, decode="card")
    wants = crews_wanted(ranks=2, encoders=1, finishers=3, placing=placing)
    assert wants.cards(4) == {"group": 8, "encoder": 2, "finisher": 3}
    assert [wants.groups_on(cards) for cards in (7, 8, 9, 13)] == [1, 1, 2, 4]
    with pytest.raises(ConfigError, match=r"gpus is 6, expected at least 7 \(group 2, encoder 2, finisher 3\)"):
        wants.groups_on(6)
    on_cpus = crews_wanted(ranks=2, encoders=1, finishers=3, placing=placing, on_cards=False)
    assert on_cpus.cards(4) == {}
