"""One `nightly` from its settings to its report: checks what it is given, takes the output's lease, and goes round."""

from datetime import UTC, datetime

from pipeline.lease.acquiring import acquire
from pipeline.lease.holder import new_run_id
from pipeline.nightly.channels import Channel
from pipeline.nightly.inbox import check_places
from pipeline.nightly.journal import Journal
from pipeline.nightly.loop import Nightly, Report
from pipeline.nightly.outbox import Outbox
from pipeline.nightly.rendering import ManifestRenderer, SystemClock
from pipeline.nightly.settings import NightlySettings
from pipeline.probing import probe
from pipeline.store import open_store

NOTES = "_nightly"  # below the output: what nights used, notices, times, and a lease. No manifest's name begins so


def run_nightly(settings: NightlySettings, *, channels: tuple[Channel, ...]) -> Report:
    """ConfigError, or StoreError where the inbox cannot be read; LeaseHeld where another nightly has the output."""
    storage, clock = settings.render.storage, SystemClock()
    inbox, output = open_store(settings.inbox, storage), open_store(settings.output, storage)
    check_places(inbox, output)
    if settings.must_finish_by is not None:
        settings.window.moment(settings.must_finish_by, night=settings.window.next_night(clock.now()))
    notes = open_store(output.where(NOTES), storage)
    mode = probe(notes)
    run_id = new_run_id(datetime.now(UTC))
    with acquire(notes, run_id=run_id, mode=mode, settings=settings.render.lease) as lease:
        return Nightly(
            settings,
            inbox=inbox,
            output=output,
            renderer=ManifestRenderer(settings, notes=notes),
            clock=clock,
            journal=Journal(notes),
            outbox=Outbox(notes, channels=channels, clock=clock, inbox=inbox.uri, output=output.uri),
            check_lease=lease.check,
        ).run()
