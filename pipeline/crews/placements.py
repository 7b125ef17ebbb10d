"""Placement groups by name: whose they are can be told by any later run, which removes what a killed one has left."""

import hashlib
import logging
import os
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from pipeline.crews.nodes import Resources, selector
from pipeline.settings import Packing
from pipeline.store import StorageSettings, open_store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Names:
    """Of one run's placement groups."""

    output: str  # 8 hex digits, the same for all runs of one output
    run_id: str

    def of(self, crew_id: str) -> str:
        return f"{self._of_run()}{crew_id}"

    def left(self) -> dict[str, str]:
        """Those that still hold or want room: names by id."""
        return _named(self._of_run())

    def sweep(self) -> None:
        """Removes those of other runs of this output, and their actors with them. Whoever has its lease may do so."""
        own = self.left()
        left = {each: name for each, name in _named(f"happyhorse:{self.output}:").items() if each not in own}
        for each in left:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(each))))
        if left:
            log.warning("removed what other runs of this output had left: %s", ", ".join(sorted(left.values())))

    def _of_run(self) -> str:
        return f"happyhorse:{self.output}:{self.run_id}:"


def names_of(output: str, storage: StorageSettings, *, run_id: str) -> Names:
    """A folder is one of this host, and a bucket one of its endpoint: others may have some of the same name."""
    store = open_store(output, storage)
    endpoint = storage.endpoint_url or os.environ.get("AWS_ENDPOINT_URL", "")
    where = f"{socket.gethostname() if store.is_folder else endpoint} {store.uri}"
    return Names(hashlib.sha256(where.encode()).hexdigest()[:8], run_id)


def place(name: str, bundle: Resources, count: int, *, packing: Packing, off: Collection[str]) -> PlacementGroup:
    """Asks for it and returns; it ends with this process, and waits for ever where there is no room."""
    placed: PlacementGroup = placement_group(
        [dict(bundle)] * count, strategy=packing, name=name, bundle_label_selector=[selector(off)] * count
    )
    return placed


def is_there(placement: PlacementGroup) -> bool:
    return bool(placement_group_table(placement).get("state") == "CREATED")


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
