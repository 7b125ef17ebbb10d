"""Small manifests and pictures for tests: written, read and judged in one line each."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.errors import ManifestError
from pipeline.manifest.hashing import settings_hasher
from pipeline.manifest.reading import Manifest, read_manifest
from pipeline.manifest.rows import Rules
from pipeline.store import StorageSettings
from pipeline.types import Clip
from tests.clips import MEDIA
from tests.models import small_model

MODEL = small_model()
STORAGE = StorageSettings()


def count_words(text: str) -> int:
    return len(text.split())


RULES = Rules(model=MODEL, count_tokens=count_words)
HASH_CLIP = settings_hasher(model_hash="m" * 16, media=MEDIA)


def read(uri: Path | str, *, rules: Rules | None = None, **settings: Any) -> Manifest:
    return read_manifest(str(uri), storage=STORAGE, rules=rules or RULES, hash_clip=HASH_CLIP, **settings)


def table_of(manifest: Manifest) -> pa.Table:
    """The selected rows with all columns, as they are streamed for the results."""
    return pa.Table.from_batches([data for _, data in manifest.batches()], manifest.source.schema)


def write(folder: Path, columns: dict[str, Any] | pa.Table, name: str = "m.parquet") -> Path:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, folder / name)
    return folder / name


def findings(uri: Path | str, **settings: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read(uri, **settings)
    return [str(finding) for finding in caught.value.findings]


def picture(width: int = 400, height: int = 300, *, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, kind, **options)
    return buffer.getvalue()


def only(manifest: Manifest) -> Clip:
    (clip,) = manifest.clips
    return clip
