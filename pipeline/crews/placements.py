"""Placement groups by name: whose they are can be told by any later run, which removes what a killed one has left."""

import hashlib
import logging
from collections.abc import Collection, Mapping
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from pipeline.crews.nodes import Resources, selector
from pipeline.settings import Packing

log = logging.getLogger(__name__)


def name_of(*, output: str, run_id: str, crew_id: str = "") -> str:
    return f"{_name_of_output(output)}{run_id}:{crew_id}"


def _name_of_output(output: str) -> str:
    return f"happyhorse:{hashlib.sha256(output.rstrip('/').encode()).hexdigest()[:8]}:"


def place(name: str, bundle: Resources, count: int, *, packing: Packing, off: Collection[str]) -> PlacementGroup:
    """Asks for it and returns; it ends with this process, and waits for ever where there is no room."""
    placed: PlacementGroup = placement_group(
        [dict(bundle)] * count, strategy=packing, name=name, bundle_label_selector=[selector(off)] * count
    )
    return placed


def is_there(placement: PlacementGroup) -> bool:
    return bool(placement_group_table(placement).get("state") == "CREATED")


def left_by(*, output: str, run_id: str) -> dict[str, str]:
    """Placement groups of one run that still hold or want room: names by id."""
    return _named(name_of(output=output, run_id=run_id))


def sweep(*, output: str, run_id: str) -> None:
    """Removes those of other runs of this output, and their actors with them. Whoever has its lease may do so."""
    own = left_by(output=output, run_id=run_id)
    left = {each: name for each, name in _named(_name_of_output(output)).items() if each not in own}
    for each in left:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(each))))
    if left:
        log.warning("removed what other runs of this output had left: %s", ", ".join(sorted(left.values())))


def _named(prefix: str) -> dict[str, str]:
    table: Mapping[str, Mapping[str, Any]] = placement_group_table()
    return {
        each: info["name"]
        for each, info in table.items()
        if info["name"].startswith(prefix) and info["state"] != "REMOVED"
    }


def no_room(bundle: Resources, count: int, *, together: bool) -> str:
    """What a bounded wait for a place was for, and what is there."""
    wanted = f"{count} x {told(bundle)}" if count > 1 else told(bundle)
    where = " on one node" if together and count > 1 else ""
    there = told(ray.cluster_resources())  # type: ignore[no-untyped-call]
    free = told(ray.available_resources())  # type: ignore[no-untyped-call]
    return f"there is no room for {wanted}{where}; the cluster has {there}, free are {free}"


def told(have: Resources) -> str:
    return ", ".join(f"{have.get(name, 0):g} {name}" for name in ("CPU", "GPU") if name in have) or "nothing"
