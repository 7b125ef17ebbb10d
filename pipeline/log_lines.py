"""How log lines look: what is said first, then which run, group and clip it is about, as far as that is known."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.redact import redacted

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class LineFormatter(logging.Formatter):
    """Whoever wrote the line, an address in it may hold a secret."""

    def __init__(self, run_id: str | None = None) -> None:
        super().__init__(FORMAT)
        self.run_id = run_id

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's own name: before a traceback
        if record.name.partition(".")[0] != "pipeline":
            return super().formatMessage(record)
        about = {"run": self.run_id, "group": getattr(record, "group", None), "clip": getattr(record, "clip", None)}
        known = " ".join(f"{name}={value}" for name, value in about.items() if value is not None)
        return super().formatMessage(record) + (f" [{known}]" if known else "")


@contextmanager
def named(run_id: str) -> Iterator[None]:
    """Lines on stderr carry the run's id for as long."""
    handlers = logging.getLogger().handlers
    formatters = [each.formatter for each in handlers if isinstance(each.formatter, LineFormatter)]
    before = [each.run_id for each in formatters]
    for each in formatters:
        each.run_id = run_id
    try:
        yield
    finally:
        for each, was in zip(formatters, before, strict=True):
            each.run_id = was
