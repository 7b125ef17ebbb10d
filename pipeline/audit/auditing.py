"""The audit of an output, in an order in which a run that is at work meanwhile cannot make a false finding.

A run uploads files, then writes their record, then results. Here results are fetched first, then files are listed, then
records: whatever results claim is among the records by then, and whatever lies there unnamed was there before.
"""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.audit.claims import fetched_claims, stand
from pipeline.audit.finding import Findings
from pipeline.audit.leavings import LeaseSeen, listed_files, look_at_lease, orphans, own_names, unfinished
from pipeline.audit.records import look_at_records
from pipeline.audit.rows import Rows
from pipeline.errors import StoreError
from pipeline.keyset import KeySet
from pipeline.ledger import FAILED, RECORDS, Ledger
from pipeline.results import RUN
from pipeline.store import Store

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Counted:
    """Things and their bytes."""

    count: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        self.count += 1
        self.size_bytes += size_bytes


@dataclass(kw_only=True)
class AuditReport:
    """What is there, and what is wrong. What a crash may leave is counted and is no finding."""

    states: dict[str, int] | None = None  # rows by state; None: there were no rows to hold the records against
    num_records: int = 0
    num_superseded: int | None = None  # records that no row has; None as above
    files: Counted = field(default_factory=Counted)  # that records name
    orphans: Counted = field(default_factory=Counted)  # that no record names
    unrecorded: Counted = field(default_factory=Counted)  # the same, but a run is at work that may record them yet
    unfinished: Counted = field(default_factory=Counted)  # half-written, on disk
    num_failures: int = 0
    num_overtaken: int = 0  # failures of clips that have a record since
    lease: LeaseSeen
    findings: Findings = field(default_factory=Findings)


@dataclass(kw_only=True)
class _Seen:
    """Of all records, in sixteen bytes each."""

    records: KeySet = field(default_factory=KeySet)
    stands: KeySet = field(default_factory=KeySet)
    files: KeySet = field(default_factory=KeySet)
    wrong: KeySet = field(default_factory=KeySet)  # records about which something was found


def audit_output(store: Store, *, rows: Rows | None) -> AuditReport:
    """StoreError if it cannot be read, or if there is nothing that could be audited."""
    with fetched_claims(store) as claims:
        listed = listed_files(store)
        report = AuditReport(lease=look_at_lease(store, now=datetime.now(UTC)))
        failures = Ledger(store).failed_keys()
        seen = _look_at_records(store, report)
        if not report.num_records and not report.findings and store.head(RUN) is None:
            raise StoreError(f"{store.uri} holds neither {RUN} nor records: there is nothing to audit")
        for finding in claims.check(records=seen.records, stands=seen.stands, wrong=seen.wrong):
            report.findings.add(finding)
    _count_leavings(store, report, listed=listed, named=seen.files)
    _count_failures(store, report, records=seen.records)
    if rows is not None:
        report.states = rows.states(records=seen.records, failures=failures)
        report.num_superseded = len(seen.records) - seen.records.num_common(rows.record_keys())
    report.findings.kept.sort()
    log.info("%s: %d records, %d findings", store.uri, report.num_records, len(report.findings))
    return report


def _look_at_records(store: Store, report: AuditReport) -> _Seen:
    seen = _Seen()
    for each in look_at_records(store):
        for finding in each.findings:
            report.findings.add(finding)
        if each.findings:
            seen.wrong.add([each.key])
        if each.record is not None:
            seen.stands.add([stand(each.record)])
            seen.files.add(own_names(each.record))
            for file in each.files:
                report.files.add(file.size_bytes)
        if each.record is not None or each.findings:  # else it was removed meanwhile
            report.num_records += 1
            seen.records.add([each.key])
    return seen


def _count_leavings(store: Store, report: AuditReport, *, listed: KeySet, named: KeySet) -> None:
    started_at = report.lease.started_at if not report.lease.is_old else None
    for entry in unfinished(store):
        report.unfinished.add(entry.size_bytes)
    for entry in orphans(store, listed=listed, named=named):
        may_be_recorded = started_at is not None and entry.modified_at >= started_at
        (report.unrecorded if may_be_recorded else report.orphans).add(entry.size_bytes)


def _count_failures(store: Store, report: AuditReport, *, records: KeySet) -> None:
    of_records = KeySet()
    for key in Ledger(store).failure_keys():
        report.num_failures += 1
        of_records.add([f"{RECORDS}/{key.removeprefix(f'{FAILED}/')}"])
    report.num_overtaken = records.num_common(of_records)
