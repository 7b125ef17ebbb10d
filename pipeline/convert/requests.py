"""Request bodies of the hosted HappyHorse API (Model Studio's video synthesis), as rows of a manifest.

{"model": "happyhorse-1.0-i2v",
 "input": {"prompt": "...", "media": [{"type": "first_frame", "url": "https://..."}]},
 "parameters": {"resolution": "1080P", "ratio": "16:9", "duration": 5, "seed": 42, "watermark": false}}

What has no column of its own is carried by its dotted name (`parameters.watermark`); what would make another clip than
the one that was asked for (reference pictures, a video to edit, a last frame) is a finding.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from model.config import Size
from pipeline.manifest.cells import COLUMNS, quoted

PARTS = ("input", "parameters")
ALIASES = {  # dotted name -> column; a part's own names that are columns need no entry
    "input.img_url": "image",
    "input.image_url": "image",
    "input.first_frame_url": "image",
    "input.audio_url": "audio_in",
    "input.driving_audio_url": "audio_in",
    "parameters.aspect_ratio": "ratio",
    "parameters.guidance_scale": "guidance",
    "parameters.num_inference_steps": "steps",
}
MEDIA = {"first_frame": "image", "driving_audio": "audio_in"}  # types of input.media
OTHERS = "last_frame_url video_url ref_images_url reference_urls reference_video_urls mask_image_url template function"
OTHER_CLIPS = frozenset(f"input.{name}" for name in OTHERS.split())  # what these ask for cannot be rendered
SIZE = "parameters.size"
SIZE_TEXT = re.compile(r"([0-9]{1,5}) ?[*xX×] ?([0-9]{1,5})")

Sizes = Mapping[str, Mapping[str, Size]]  # a model's: resolution -> ratio -> size
Complain = Callable[[str, str, str], None]  # column, got, expected


def is_request(values: Mapping[str, Any]) -> bool:
    return isinstance(values.get("input"), dict) and isinstance(values.get("parameters", {}), dict | None)


def flattened(values: Mapping[str, Any], *, sizes: Sizes, complain: Complain) -> dict[str, Any]:
    """One request's columns. A column that is given twice is a finding, unless both say the same."""
    row: dict[str, Any] = {}
    for column, value in _columns(values, sizes, complain):
        if row.get(column) is not None and value is not None and row[column] != value:
            complain(column, f"{quoted(row[column])} and {quoted(value)}", "one of them")
        elif row.get(column) is None:
            row[column] = value
    return row


def _columns(values: Mapping[str, Any], sizes: Sizes, complain: Complain) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name not in PARTS:
            yield name, value
    for part in PARTS:
        for name, value in (values.get(part) or {}).items():
            dotted = f"{part}.{name}"
            if dotted == "input.media":
                yield from _media(value, complain)
            elif dotted == SIZE and value is not None:
                yield from _size(value, sizes, complain)
            elif dotted in OTHER_CLIPS and value:
                complain(dotted, quoted(value), "nothing: a clip is made from text and at most a first frame")
            else:
                yield ALIASES.get(dotted, name if name in COLUMNS else dotted), value


def _media(value: Any, complain: Complain) -> Iterator[tuple[str, Any]]:
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict) and each.get("type") in MEDIA and isinstance(each.get("url"), str):
            yield MEDIA[each["type"]], each["url"]
        elif each is not None:
            complain("input.media", quoted(each), f"objects of a url and a type, which is {' or '.join(MEDIA)}")


def _size(value: Any, sizes: Sizes, complain: Complain) -> Iterator[tuple[str, Any]]:
    """1280*720 is a resolution and a ratio, where the model delivers exactly that."""
    known = {
        (size.width, size.height): (resolution, ratio)
        for resolution, ratios in sizes.items()
        for ratio, size in ratios.items()
    }
    match = SIZE_TEXT.fullmatch(value) if isinstance(value, str) else None
    found = known.get((int(match[1]), int(match[2]))) if match else None
    if found is None:
        complain(SIZE, quoted(value), "one of " + ", ".join(f"{width}*{height}" for width, height in known))
        return
    yield "resolution", found[0]
    yield "ratio", found[1]
