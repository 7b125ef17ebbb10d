"""The process in which damaged files are read: `python -m tests.fuzz.child TARGET SEED FIRST SECONDS FOLDER`.

It ends with 0 and one line of counts, or with a traceback; the number of the case at hand is in FOLDER/number. A single
case (SECONDS 0) says what became of it.
"""

import json
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from model.images import prepare_image
from pipeline.convert.conversion import Conversion, Format, convert
from pipeline.errors import ManifestError
from pipeline.inputs.images import BadInput, ImageReader
from pipeline.inputs.sounds import SoundReader
from tests.fuzz.inputs import make_case, seeds
from tests.manifests import STORAGE, count_words
from tests.models import small_model

MAX_SECONDS = 20  # of one case
MAX_GROWTH_MB = 400  # of the peak of memory, above what undamaged files take
MAX_SPACE = 8 << 30  # of addresses: saves the machine


def main(target: str, seed: int, first: int, seconds: float, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_SPACE, MAX_SPACE))
    judge = {"image": _image, "sound": _sound}.get(target) or _table(target)
    for data in seeds(target):
        judge(data, folder)
    base_mb = _peak_mb()
    accepted = number = 0
    end = time.monotonic() + seconds
    for number in range(first, sys.maxsize):
        (folder / "number").write_text(str(number))
        signal.alarm(MAX_SECONDS)
        said = judge(make_case(target, seed, number), folder)
        accepted += said is None
        if _peak_mb() > base_mb + MAX_GROWTH_MB:
            raise SystemExit(f"memory grew from {base_mb:.0f} MB to {_peak_mb():.0f} MB")
        if seconds == 0:
            print(said or "accepted")
        if time.monotonic() >= end:
            break
    print(json.dumps({"cases": number + 1 - first, "accepted": accepted, "grown_mb": round(_peak_mb() - base_mb)}))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _table(target: str) -> Callable[[bytes, Path], str | None]:
    """To Parquet and on to the other formats: both ways of the converter, and the checks of `render`."""
    endings: dict[str, Format] = {"parquet": "jsonl", "csv": "json", "jsonl": "csv", "json": "parquet"}

    def judge(data: bytes, folder: Path) -> str | None:
        source = folder / f"rows.{target}"
        source.write_bytes(data)
        conversion = Conversion(
            source=str(source),
            target=str(folder / f"made.{endings[target]}"),
            storage=STORAGE,
            model=small_model(),
            count_tokens=count_words,
        )
        try:
            convert(conversion)
        except ManifestError as error:
            return str(error)
        return None

    return judge


def _image(data: bytes, folder: Path) -> str | None:
    (read,) = ImageReader([str(folder)], storage=STORAGE).read_all([data]).values()
    if isinstance(read, BadInput):
        return str(read)
    try:
        prepare_image(data, height=64, width=64)
    except ValueError as error:
        return str(error)
    return None


def _sound(data: bytes, folder: Path) -> str | None:
    (read,) = SoundReader([str(folder)], storage=STORAGE).read_all([data]).values()
    return str(read) if isinstance(read, BadInput) else None


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5]))
