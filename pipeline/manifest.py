"""A table of prompts, read and checked whole before anything is started. All that is wrong is said at once.

`tables.py` reads the files, `cells.py` knows the columns' types, `rows.py` what a value must be, `images.py` what a
picture must be.
"""

import hashlib
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from model.config import ModelConfig
from pipeline.cells import COLUMNS, Findings, read_cells
from pipeline.errors import ManifestError
from pipeline.images import BadImage, ImageReader
from pipeline.rows import RowReader
from pipeline.store import StorageSettings
from pipeline.tables import read_table
from pipeline.types import Clip, ImageRef, JsonDict

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A checked manifest: row i of the table is `clips[i]`, with all columns as they were."""

    uri: str
    clips: tuple[Clip, ...]
    table: pa.Table
    files: tuple[str, ...] = ()  # the addresses it was read from

    def is_read_from(self, address: str) -> bool:
        """Whether this object, perhaps by another name for its folder, is one of the manifest's files."""
        return _real(address) in {_real(file) for file in self.files}

    @property
    def carried(self) -> tuple[str, ...]:
        """Columns that say nothing to us and come back in the results."""
        return tuple(name for name in self.table.column_names if name not in COLUMNS)

    def row(self, clip: Clip) -> JsonDict:
        """The clip's whole row, fit for JSON: bytes, and text that is not UTF-8, become digest and size."""
        return {name: _json_safe(_as_py(self.table.column(name)[clip.row])) for name in self.table.column_names}


def read_manifest(
    uri: str,
    *,
    storage: StorageSettings,
    model: ModelConfig,
    count_tokens: Callable[[str], int],
    truncate_text: bool = False,
    folder: str | None = None,
) -> Manifest:
    """Reads a Parquet file, a folder of them or a glob. ManifestError lists every finding.

    Relative images are looked for in `folder`; None: beside the table.
    """
    table, beside, files = read_table(uri, storage=storage)
    folder = beside if folder is None else folder
    findings = Findings()
    if table.num_rows == 0:
        findings.add(-1, "", "no rows", "at least one")
    cells = read_cells(table, findings)
    images = _read_images(cells["image"], ImageReader([folder], storage=storage), findings)
    reader = RowReader(model=model, count_tokens=count_tokens, findings=findings, truncate_text=truncate_text)
    # Without prompts every row would be reported for the same reason.
    typed = not any(finding.row < 0 and finding.column == "prompt" for finding in findings.items)
    clips = [clip for clip in (reader.clips(cells, images) if typed else []) if clip is not None]
    if findings.items:
        raise ManifestError(uri, findings.in_order())
    manifest = Manifest(uri=uri, clips=tuple(clips), table=table, files=files)
    log.info("%s: %d clips, carried columns: %s", uri, len(clips), ", ".join(manifest.carried) or "none")
    return manifest


def _read_images(values: Sequence[Any], reader: ImageReader, findings: Findings) -> list[ImageRef | None]:
    """The images of all rows, each address read once; what cannot be used is a finding for every row that names it."""
    wanted = [_address_or_bytes(value) for value in values]
    read = reader.read_all([each for each in wanted if each is not None])
    images: list[ImageRef | None] = []
    for row, each in enumerate(wanted):
        image = read[each] if each is not None else None
        if isinstance(image, BadImage):
            findings.add(row, "image", image.got, image.expected)
        images.append(None if isinstance(image, BadImage) else image)
    return images


def _real(address: str) -> str:
    return address if "://" in address else os.path.realpath(address)


def _address_or_bytes(value: Any) -> str | bytes | None:
    if isinstance(value, dict):
        data: bytes | None = value.get("bytes")
        path: str | None = value.get("path")
        return path if data is None else data
    text: str | None = value
    return text


def _as_py(scalar: pa.Scalar) -> Any:
    """Moments that Python has no value for come as Arrow's text, text that is not UTF-8 as bytes.

    Such are nanoseconds, the year 10000 and time zones that nobody knows. It is used when a clip is rendered already:
    whatever can be read must get through.
    """
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.StructScalar):
        return {name: _as_py(value) for name, value in scalar.items()}
    if isinstance(scalar, (pa.ListScalar, pa.LargeListScalar, pa.FixedSizeListScalar)):  # maps are lists of pairs
        return [_as_py(value) for value in scalar.values]
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        while not hasattr(scalar, "as_buffer"):  # a dictionary's or an extension's
            scalar = scalar.value
        return scalar.as_buffer().to_pybytes()
    except (ValueError, OverflowError, LookupError):
        return _moment(scalar)


def _moment(scalar: pa.Scalar) -> str:
    try:
        return str(scalar.cast(pa.string()).as_py())
    except (pa.ArrowException, AttributeError):
        return f"{getattr(scalar, 'value', '')} {scalar.type}".lstrip()


def _json_safe(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return {"sha256": hashlib.sha256(value).hexdigest(), "size_bytes": len(value)}
    if isinstance(value, dict):
        return {str(key): _json_safe(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(each) for each in value]
    return str(value)
