"""`happyhorse verify output=Y`: every record against the files that it names. Exit 0 all well, 1 otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.typed import build
from pipeline.store import StorageSettings, open_store
from pipeline.verify import verify_output


@dataclass(frozen=True, kw_only=True)
class VerifySettings:
    output: str
    storage: StorageSettings


def verify(values: Mapping[str, Any]) -> int:
    settings = build(VerifySettings, values, at="")
    store = open_store(settings.output, settings.storage)
    findings = verify_output(store)
    for finding in findings:
        print(finding)
    if findings:
        print(
            f"{store.uri}: findings: {len(findings)}. Delete the records they name and render again to mend these clips"
        )
    else:
        print(f"{store.uri}: every file is as recorded")
    return 1 if findings else 0
