"""The rows of a manifest, each in exactly one state, and the records that no row has any more.

How rows are named follows from what the run wrote down of itself: no weights are read, but for a tokenizer where texts
were cut to fit it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.config import ModelConfig
from pipeline.inputs.access import OWN_FOLDER, InputAccess
from pipeline.keyset import KeySet
from pipeline.ledger import failed_key, record_key
from pipeline.manifest.findings import Findings
from pipeline.manifest.hashing import settings_hasher
from pipeline.manifest.index import RowIndex
from pipeline.manifest.reading import check_manifest
from pipeline.manifest.rows import Rules
from pipeline.manifest.tables import open_source
from pipeline.plan import has_key, row_keys
from pipeline.store import StorageSettings
from pipeline.types import MediaSettings


@dataclass(frozen=True, kw_only=True)
class RowSettings:
    """What decides the records that a manifest's rows would have, as a run used it."""

    manifest: str
    weights: str
    model: ModelConfig
    model_hash: str
    media: MediaSettings
    truncate_text: bool
    images: InputAccess = OWN_FOLDER


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A manifest as it is now: all of it, whatever a run selected."""

    manifest: str
    num_rows: int
    index: RowIndex  # of those that a clip can be made of

    def record_keys(self) -> KeySet:
        """Of the records that the rows have or will have."""
        found = KeySet()
        for keys in row_keys(self.index, record_key):
            found.add(keys)
        return found

    def states(self, *, records: KeySet, failures: KeySet) -> dict[str, int]:
        """How many rows are in which state; each is in one. A record counts more than a failure before it."""
        done = has_key(self.index, records, record_key)
        failed = has_key(self.index, failures, failed_key) & ~done
        num_done, num_failed = int(np.count_nonzero(done)), int(np.count_nonzero(failed))
        return {
            "SUCCEEDED": num_done,
            "FAILED": num_failed,
            "PENDING": len(self.index) - num_done - num_failed,
            "INVALID": self.num_rows - len(self.index),
        }


def read_rows(settings: RowSettings, storage: StorageSettings) -> Rows:
    """RenderError if the manifest cannot be read. Rows in which something is wrong are counted, and that is all."""
    source = open_source(settings.manifest, storage=storage)
    rules = Rules(
        model=settings.model,
        count_tokens=_token_counter(settings, storage),
        truncate_text=settings.truncate_text,
    )
    index, _ = check_manifest(
        source,
        storage=storage,
        rules=rules,
        findings=Findings(),
        hash_clip=settings_hasher(model_hash=settings.model_hash, media=settings.media),
        access=settings.images,
    )
    return Rows(manifest=settings.manifest, num_rows=source.num_rows, index=index)


def _token_counter(settings: RowSettings, storage: StorageSettings) -> Callable[[str], int]:
    """Tokens decide a row's name only where texts were cut; else a text that is too long has no record anyway."""
    if not settings.truncate_text:
        return lambda text: 0
    from model.parts import parts_of
    from model.text import build_token_counter
    from pipeline.weights.opening import open_weights, weights_errors

    with weights_errors(settings.weights):
        return build_token_counter(
            settings.model, open_weights(settings.weights, storage, parts=parts_of(settings.model))
        )
