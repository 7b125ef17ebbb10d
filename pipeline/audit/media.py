"""A delivered file as a player sees it: PyAV reads all of it, and it is as large and as long as the clip was to be."""

from collections.abc import Iterator
from pathlib import Path

import av
import av.error

from model.shapes import ClipShape
from pipeline.errors import EncodeError
from pipeline.ledger import ClipRecord
from pipeline.media import check_probe, probe_mp4
from pipeline.types import JsonDict

Wrong = tuple[str, str]  # what was got, what was expected


def check_media(path: Path, kind: str, record: ClipRecord) -> Iterator[Wrong]:
    """What is wrong with a file of this kind (mp4, wav, jpg) as a file of this record."""
    shape = recorded_shape(record)
    try:
        if kind == "mp4":
            probe = probe_mp4(path)
            if probe != record.finished.probe:
                yield str(probe), f"what was seen before it was uploaded, {record.finished.probe}"
            check_probe(probe, shape, bool(record.settings["audio"]))
        elif kind == "wav":
            got, expected = _wav_length(path), (shape.num_samples, shape.sample_rate_hz)
            if got != expected:
                yield f"{got[0]} samples at {got[1]} Hz", f"{expected[0]} at {expected[1]} Hz"
        else:
            size = _picture_size(path)
            if size != (shape.width, shape.height):
                yield f"a picture of {size[0]}x{size[1]}", f"{shape.width}x{shape.height}"
    except (EncodeError, av.error.FFmpegError) as error:
        yield str(error).replace(f"{path.parent}/", ""), f"a whole {kind} of its clip"


def recorded_shape(record: ClipRecord) -> ClipShape:
    """Of the clip's settings. KeyError, TypeError or ValueError if they hold none."""
    given = record.settings["shape"].items()
    values: JsonDict = {name: tuple(value) if isinstance(value, list) else value for name, value in given}
    return ClipShape(**values)


def _wav_length(path: Path) -> tuple[int, int]:
    """Samples a channel, and how many of them are a second."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise EncodeError(f"{path.name} has no sound")
        return sum(frame.samples for frame in container.decode(audio=0)), container.streams.audio[0].rate


def _picture_size(path: Path) -> tuple[int, int]:
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise EncodeError(f"{path.name} has no picture")
        sizes = [(frame.width, frame.height) for frame in container.decode(video=0)]
    if len(sizes) != 1:
        raise EncodeError(f"{path.name} has {len(sizes)} pictures")
    return sizes[0]
