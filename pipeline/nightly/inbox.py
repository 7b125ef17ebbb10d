"""The manifests of an inbox and the output that each one gets. Nothing in an inbox is ever changed, moved or deleted.

A manifest is a `.parquet` file that lies directly in the inbox; its output is `<output>/<its name without suffix>`.
What is wrong with a manifest is written below `<output>/rejected/`; it is looked at again every night.
"""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from urllib.parse import quote

from pipeline.errors import ConfigError, Finding, ManifestError, StoreError
from pipeline.manifest.findings import write_findings
from pipeline.store import Entry, Store, key_problem
from pipeline.store_errors import explain

SUFFIX = ".parquet"
REJECTED = "rejected"  # below the output, so no manifest's name
TEXT, TABLE = "findings.txt", "findings.parquet"
MOST_CHARS = 200  # of a name that can be no key, once it is quoted
HIDDEN = (".", "_")  # by the custom of Parquet folders other programs' notes, and ours below the output


@dataclass(frozen=True, kw_only=True)
class Found:
    """One manifest of the inbox."""

    name: str  # of its output
    address: str
    written_at: datetime
    mark: str  # changes when the file does
    problem: str | None = None  # why it can have no output

    @property
    def file(self) -> str:
        return self.address.rpartition("/")[2]


def check_places(inbox: Store, output: Store) -> None:
    """ConfigError where one lies in the other or there is no inbox; StoreError where it may not be read."""
    for one, other in ((inbox, output), (output, inbox)):
        if f"{_real(one)}/".startswith(f"{_real(other)}/"):
            raise ConfigError(f"{one.uri} lies in {other.uri}, expected an inbox and an output beside one another")
    error = _listing_error(inbox)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        raise ConfigError(f"inbox: {inbox.uri} is not there or is no folder") from error
    if error is not None:
        raise StoreError(f"cannot list {inbox.uri}: {explain(error)}") from error


def find_manifests(inbox: Store) -> list[Found]:
    """In order of their names. Those that would share an output all have a problem: none of them is first."""
    error = _listing_error(inbox)
    if error is not None:
        raise StoreError(f"cannot list {inbox.uri}: {explain(error)}") from error
    entries = [each for each in inbox.list() if is_manifest(each.key)]
    by_output: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_output[_name(entry).casefold()].append(entry)  # some file systems know no difference
    return [
        Found(
            name=_name(entry) if key_problem(_name(entry)) is None else quote(_name(entry))[:MOST_CHARS],
            address=inbox.where(entry.key),
            written_at=entry.modified_at,
            mark=_digest(f"{entry.key} {entry.size_bytes} {entry.modified_at.isoformat()}"),
            problem=_problem(entry, by_output[_name(entry).casefold()]),
        )
        for entry in sorted(entries)
    ]


def is_manifest(key: str) -> bool:
    return "/" not in key and not key.startswith(HIDDEN) and key.lower().endswith(SUFFIX)


def set_aside(output: Store, found: Found, error: ManifestError) -> str:
    """Writes what is wrong with a manifest as text and as Parquet. Where that is."""
    folder = f"{REJECTED}/{found.name}" if found.problem is None else f"{REJECTED}/{found.file}"
    text = f"{error}\n\nThe manifest is left where it is and is looked at again every night.\n"
    output.put(f"{folder}/{TEXT}", text.encode())
    if not error.more:  # else whoever read it wrote them all
        write_findings(error.findings, output.where(f"{folder}/{TABLE}"), storage=output.settings)
    return output.where(folder)


def no_longer_aside(output: Store, names: Iterable[str]) -> None:
    """Removes the findings of manifests that are right now."""
    for name in names:
        for each in (TEXT, TABLE):
            output.delete(f"{REJECTED}/{name}/{each}")


def set_aside_before(output: Store) -> set[str]:
    """Names below `rejected/`."""
    return {each.key.split("/")[1] for each in output.list(REJECTED)}


def problem_of(found: Found) -> ManifestError:
    assert found.problem is not None
    return ManifestError(found.address, [Finding(-1, "", found.problem, "a name that no other manifest has")])


def _listing_error(inbox: Store) -> OSError | None:
    """Why a folder cannot be listed. A listing of one that is gone would only be empty."""
    if "://" in inbox.uri:
        return None
    try:
        os.listdir(inbox.uri)
    except OSError as error:
        return error
    return None


def _name(entry: Entry) -> str:
    return entry.key[: -len(SUFFIX)]


def _problem(entry: Entry, alike: list[Entry]) -> str | None:
    name = _name(entry)
    if name.casefold() == REJECTED:
        return f"the name {REJECTED}, which is taken"
    if key_problem(name):
        return f"the name {name!r}: {key_problem(name)}"
    others = sorted(each.key for each in alike if each.key != entry.key)
    return f"the same output as {', '.join(others)}" if others else None


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def _real(store: Store) -> str:
    return store.uri if "://" in store.uri else os.path.realpath(store.uri)
