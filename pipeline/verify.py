"""The part of an audit that needs nothing but records and files: each record by itself. Reads, changes nothing."""

import logging

from pipeline.audit.finding import AuditFinding, Findings
from pipeline.audit.records import look_at_records
from pipeline.errors import StoreError
from pipeline.store import Store

log = logging.getLogger(__name__)


def verify_output(store: Store) -> list[AuditFinding]:
    """The findings of an output, by record. StoreError if it cannot be read, or has no records to check."""
    findings, num_records = Findings(), 0
    for num_records, each in enumerate(look_at_records(store), 1):  # noqa: B007
        for finding in each.findings:
            findings.add(finding)
    if not num_records:
        raise StoreError(f"{store.uri} holds no records: there is nothing to verify")
    log.info("%s: %d records, %d findings", store.uri, num_records, len(findings))
    return sorted(findings.kept)
