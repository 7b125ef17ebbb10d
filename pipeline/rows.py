"""What each cell of a manifest must be, and how a row becomes a Clip with every default filled in. Pure functions."""

import hashlib
import json
import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from model.config import ModelConfig
from model.shapes import clip_shape, nearest_ratio
from pipeline.cells import COLUMNS, Cells, Findings, quoted
from pipeline.types import Clip, ImageRef

T = TypeVar("T")
MAX_CHARS = 5000
MAX_CHARS_CJK = 2500  # where more than half of the characters are Chinese, Japanese or Korean
MAX_SEED = 2**31 - 1
MAX_STEPS = 1000
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SAFE_ID_WORDS = "1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit"
ID_DIGITS = 16
CJK = re.compile("[⺀-⿟　-ヿㄅ-ㆿ㐀-䶿一-鿿ꥠ-꥿가-힯豈-﫿＀-￯\U00020000-\U0003ffff]")


@dataclass(frozen=True, kw_only=True)
class RowReader:
    """Turns rows into clips for one model; what is wrong goes into `findings`, and such a row gives None."""

    model: ModelConfig
    count_tokens: Callable[[str], int]
    findings: Findings
    truncate_text: bool  # cut what has too many tokens instead of reporting it

    def clips(self, cells: Cells, images: Sequence[ImageRef | None]) -> list[Clip | None]:
        ids = self._clip_ids(cells, images)
        return [
            self._clip(row, {name: cells[name][row] for name in COLUMNS}, image=images[row], clip_id=clip_id)
            for row, clip_id in enumerate(ids)
        ]

    def _clip(self, row: int, given: dict[str, Any], *, image: ImageRef | None, clip_id: str) -> Clip | None:
        before = len(self.findings.items)
        self._check_texts(row, given)
        self._check_numbers(row, given)
        resolution, ratio = self._size(row, given, image)
        duration_s = self._choice(row, "duration", given, self.model.durations_s, self.model.default_duration_s)
        if len(self.findings.items) > before:
            return None
        return Clip(
            clip_id=clip_id,
            row=row,
            prompt=self._fitted(given["prompt"] or ""),
            negative_prompt=self._negative(given["negative_prompt"]),
            image=image,
            audio=given["audio"] is not False,
            resolution=resolution,
            ratio=ratio,
            duration_s=duration_s,
            seed=default_seed(clip_id) if given["seed"] is None else given["seed"],
            steps=self.model.steps if given["steps"] is None else given["steps"],
            guidance=given["guidance"],
            priority=given["priority"] or 0,
            shape=clip_shape(self.model, resolution=resolution, ratio=ratio, duration_s=duration_s),
        )

    def _negative(self, given: str | None) -> str | None:
        if not self.model.is_guided:
            return None
        return self.model.sampling.negative_prompt if given is None else self._fitted(given)

    def _clip_ids(self, cells: Cells, images: Sequence[ImageRef | None]) -> list[str]:
        """Given ids checked, missing ones made; equal without regard to case is a finding for the later row."""
        ids: list[str] = []
        owners: dict[str, int] = {}
        for row, given in enumerate(cells["clip_id"]):
            clip_id = given
            if clip_id is None:
                clip_id = _unused(_content_id(row, cells, images[row]), owners)
            elif not SAFE_ID.fullmatch(clip_id):
                self.findings.add(row, "clip_id", quoted(clip_id), SAFE_ID_WORDS)
            elif clip_id.lower() in owners:
                expected = f"one that no other row has (row {owners[clip_id.lower()]} has it, case is not regarded)"
                self.findings.add(row, "clip_id", quoted(clip_id), expected)
            owners.setdefault(clip_id.lower(), row)
            ids.append(clip_id)
        return ids

    def _check_texts(self, row: int, given: dict[str, Any]) -> None:
        for name in ("prompt", "negative_prompt"):
            text = given[name]
            if name == "prompt" and not _is_seen(text or ""):
                self.findings.add(row, name, quoted(text), "some text")
            elif text:
                self._check_length(row, name, text)

    def _check_length(self, row: int, name: str, text: str) -> None:
        """Never cut silently: both numbers are said."""
        cjk = len(CJK.findall(text)) * 2 > len(text)
        most, words = (MAX_CHARS_CJK, " (more than half are CJK)") if cjk else (MAX_CHARS, "")
        if len(text) > most:
            self.findings.add(row, name, f"{len(text)} characters{words}", f"at most {most} characters")
            return
        tokens = 0 if self.truncate_text else self.count_tokens(text)
        if tokens > self.model.text_max_tokens:
            self.findings.add(row, name, f"{tokens} tokens", f"at most {self.model.text_max_tokens} tokens")

    def _fitted(self, text: str) -> str:
        """The text, or where texts are to be cut the longest beginning of it that has few enough tokens."""
        most = self.model.text_max_tokens
        if not self.truncate_text or self.count_tokens(text) <= most:
            return text
        return text[: bisect_right(range(len(text)), most, key=lambda end: self.count_tokens(text[:end])) - 1]

    def _check_numbers(self, row: int, given: dict[str, Any]) -> None:
        for name, least, most in (("seed", 0, MAX_SEED), ("steps", 1, MAX_STEPS)):
            if given[name] is not None and not least <= given[name] <= most:
                self.findings.add(row, name, quoted(given[name]), f"an integer from {least} to {most}")
        guidance = given["guidance"]
        if guidance is not None and not (math.isfinite(guidance) and guidance >= 0):
            self.findings.add(row, "guidance", quoted(guidance), "a finite number of 0 or more")
        for name, has in (("guidance", self.model.first_stage == "base"), ("negative_prompt", self.model.is_guided)):
            if given[name] is not None and not has:
                self.findings.add(row, name, quoted(given[name]), f"nothing: model {self.model.name} is not guided")
        if given["audio_in"] is not None:
            expected = f"nothing: model {self.model.name} cannot render to a given sound"
            self.findings.add(row, "audio_in", quoted(given["audio_in"]), expected)

    def _size(self, row: int, given: dict[str, Any], image: ImageRef | None) -> tuple[str, str]:
        """Resolution and ratio; an image decides the ratio. Wrong ones are reported and replaced by the default."""
        model = self.model
        resolution = self._choice(row, "resolution", given, model.sizes, model.default_resolution)
        if image is not None:
            return resolution, nearest_ratio(model, resolution=resolution, height=image.height, width=image.width)
        if given["image"] is not None:
            return (
                resolution,
                model.default_ratio,
            )  # an unusable image: reported already, and its row's ratio is ignored
        return resolution, self._choice(row, "ratio", given, model.sizes[resolution], model.default_ratio)

    def _choice(self, row: int, name: str, given: dict[str, Any], allowed: Collection[T], default: T) -> T:
        value = given[name]
        if value is None:
            return default
        if value not in allowed:
            self.findings.add(row, name, quoted(value), "one of " + ", ".join(str(each) for each in allowed))
            return default
        chosen: T = value
        return chosen


def _is_seen(text: str) -> bool:
    """Whether anything but space, control and format characters is in it."""
    return any(not sign.isspace() and unicodedata.category(sign) not in ("Cc", "Cf") for sign in text)


def default_seed(clip_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"seed of {clip_id}".encode()).digest()[:4]) & MAX_SEED


def _content_id(row: int, cells: Cells, image: ImageRef | None) -> str:
    """Hash of what the row says about its clip; position, priority and carried columns do not change it."""
    said = {name: cells[name][row] for name in COLUMNS if name not in ("clip_id", "priority", "image", "audio_in")}
    said["image"] = image.identity if image else None
    text = json.dumps({name: value for name, value in said.items() if value is not None}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def _unused(clip_id: str, owners: Collection[str]) -> str:
    """Rows that say the same are different clips, with seeds of their own: the second is `<id>-2`."""
    number = 1
    numbered = clip_id
    while numbered in owners:
        number += 1
        numbered = f"{clip_id}-{number}"
    return numbered
