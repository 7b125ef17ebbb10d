"""Where crews may be, and what an error of Ray means: plain values, no cluster."""

from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
)

from pipeline.crews.losses import fatal_of, is_about, kind_of, reason_of
from pipeline.crews.nodes import Nodes, held_back, holds, kept_off, selector
from pipeline.crews.placements import names_of
from pipeline.errors import EncodeError, EncoderLost, WeightsError
from pipeline.fleet import Gpu, LossKind
from pipeline.store import StorageSettings
from pipeline.worker import as_data

A, B, C = ("a" * 56, "b" * 56, "c" * 56)
NODES = Nodes(alive={A: {"CPU": 8.0, "GPU": 4.0}, B: {"CPU": 8.0, "GPU": 4.0}}, draining=frozenset({B}))


def task_error(cause: Exception) -> RayTaskError:
    return RayTaskError(function_name="load", traceback_str="", cause=cause)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("error", "node", "kind"),
    [
        (ActorDiedError(), A, "died"),
        (ActorDiedError(), None, "died"),
        (ActorDiedError(), B, "preempted"),  # it drains
        (ActorDiedError(), C, "preempted"),  # it is gone
        (RayActorError(preempted=True), A, "preempted"),
        (RayActorError(error_msg="The actor died because its node has died. Node Id: aa"), A, "preempted"),
        (ActorUnavailableError("rpc error", None), A, "preempted"),
        (NodeDiedError("gone"), A, "preempted"),  # type: ignore[no-untyped-call]
        (GetTimeoutError("an answer of a few bytes did not come"), A, "preempted"),
        (ActorUnschedulableError("no such node"), None, "unplaced"),
        (task_error(MemoryError("CUDA out of memory")), A, "died"),
        (task_error(MemoryError("CUDA out of memory")), B, "died"),  # wherever it is, this is its own
    ],
)
def test_what_kind_of_loss_an_error_is(error: RayError, node: str | None, kind: LossKind) -> None:
    assert kind_of(error, node=node, nodes=NODES) == kind


def test_which_of_an_orders_inputs_is_lost_is_told_by_its_reference() -> None:
    draft: Any = ray.ObjectRef(bytes([1] * 28))
    text: Any = ray.ObjectRef(bytes([2] * 28))
    lost = ObjectLostError(draft.hex(), b"", "")
    assert (is_about(lost, draft), is_about(lost, text), is_about(task_error(lost), draft)) == (True, False, True)
    assert not is_about(ActorDiedError(), draft)


def test_an_error_that_would_come_again_is_named() -> None:
    error = task_error(WeightsError("no tensor video_embedder"))
    assert fatal_of(error) == "WeightsError"
    assert reason_of(error) == "WeightsError: no tensor video_embedder"
    assert fatal_of(ActorDiedError()) is None


@pytest.mark.parametrize(("error", "retriable"), [(EncoderLost("killed"), True), (EncodeError("no"), False)])
def test_an_ffmpeg_that_was_killed_costs_an_attempt_and_one_that_refuses_the_clip(
    error: Exception, retriable: bool
) -> None:
    def make() -> None:
        raise error

    failed = as_data("finish", make)
    assert failed is not None
    assert (failed.kind, failed.retriable) == (type(error).__name__, retriable)


def test_a_crew_is_kept_off_nodes_as_far_as_others_hold_it() -> None:
    steady = Nodes(alive={A: {"CPU": 8.0}, B: {"CPU": 2.0}})
    two_on_one = holds({"CPU": 2.0}, 2, together=True)
    assert kept_off(steady, avoided=(), fits=two_on_one) == frozenset()
    assert kept_off(steady, avoided={B, C}, fits=two_on_one) == {B}, "what is gone needs no avoiding"
    assert kept_off(steady, avoided={A}, fits=two_on_one) == frozenset(), "B is too small: A is used after all"
    assert kept_off(NODES, avoided=(), fits=two_on_one) == {B}
    assert kept_off(NODES, avoided={A}, fits=two_on_one) == {B}, "a node that drains is worse than one that is avoided"
    last = Nodes(alive={A: {"CPU": 8.0}}, draining=frozenset({A}))
    assert kept_off(last, avoided={A}, fits=two_on_one) == frozenset()


def test_a_card_is_held_back_as_long_as_a_group_fits_without_it() -> None:
    bundle = {"CPU": 1.0, "GPU": 1.0}
    cards = [Gpu(node=node, number=number) for node in (A, B) for number in ("0", "1")]
    gone = Gpu(node=C, number="0")
    two, four = holds(bundle, 2, together=True), holds(bundle, 4, together=True)
    assert held_back(NODES, [*cards, gone], fits=two) == set(cards), "each node has two more"
    assert held_back(NODES, cards, fits=four) == set(cards[:2]), "then no node has four: B stays whole"
    assert held_back(NODES, cards, fits=holds(bundle, 8, together=False)) == frozenset()


def test_a_group_that_may_span_nodes_counts_them_together() -> None:
    nodes = [{"CPU": 3.0, "GPU": 1.0}, {"CPU": 3.0, "GPU": 1.0}]
    bundle = {"CPU": 1.0, "GPU": 1.0}
    assert holds(bundle, 2, together=False)(nodes)
    assert not holds(bundle, 2, together=True)(nodes)
    assert not holds(bundle, 3, together=False)(nodes)
    assert not holds(bundle, 1, together=True)([{"CPU": 64.0}])


def test_a_selector_is_what_ray_understands() -> None:
    assert selector(()) == {}
    assert selector({B, A}) == {"ray.io/node-id": f"!in({A},{B})"}


def test_a_name_tells_the_output_and_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def name(output: str, **storage: str) -> str:
        return names_of(output, StorageSettings(**storage), run_id="20261122-1").of("group-0")  # type: ignore[arg-type]

    prefix, digest, run_id, crew_id = name(str(tmp_path)).split(":")
    assert (prefix, len(digest), run_id, crew_id) == ("happyhorse", 8, "20261122-1", "group-0")
    monkeypatch.chdir(tmp_path.parent)
    assert name(f"{tmp_path}/") == name(f"./{tmp_path.name}") == name(str(tmp_path))
    bucket, other = name("s3://bucket/night"), name("s3://bucket/day")
    elsewhere = name("s3://bucket/night", endpoint_url="https://store.example")
    monkeypatch.setattr("socket.gethostname", lambda: "another-host")
    assert len({bucket, other, elsewhere, name(str(tmp_path)), f"happyhorse:{digest}:20261122-1:group-0"}) == 5
    assert name("s3://bucket/night/") == bucket
