"""What each cell of a manifest must be, and how a row becomes a Clip with every default filled in. Pure functions."""

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from model.config import ModelConfig
from model.shapes import ClipShape, clip_shape, nearest_ratio
from pipeline.manifest.cells import COLUMNS, quoted
from pipeline.manifest.findings import Findings
from pipeline.manifest.ids import MAX_SEED, default_seed
from pipeline.types import Clip, ImageRef, SoundRef

T = TypeVar("T")
Given = dict[str, Any]  # column -> its value in one row, for every known column; None: the default
NOTHING: Given = dict.fromkeys(COLUMNS)
MAX_CHARS = 5000
JUDGED_CHARS = 2 * MAX_CHARS  # of a longer text only its begin says whether it is CJK
MAX_CHARS_CJK = 2500  # where more than half of the characters are Chinese, Japanese or Korean
MAX_STEPS = 1000
MAX_PRIORITY = 2**31 - 1
SOUND_SLACK_S = 0.1  # that a given sound may be too short, as coded ones are by a frame or two: silence then
CJK = re.compile("[⺀-⿟　-ヿㄅ-ㆿ㐀-䶿一-鿿ꥠ-꥿가-힯豈-﫿＀-￯\U00020000-\U0003ffff]")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a row may say, and what it then means."""

    model: ModelConfig
    count_tokens: Callable[[str], int]
    spare_tokens: int | None = None  # n bytes of text are at most n + this many tokens; None: that is not known
    truncate_text: bool = False  # cut what has too many tokens instead of reporting it

    def num_tokens(self, text: str) -> int:
        """Counted where they may be too many, else guessed: counting takes longer than all else that a row needs."""
        num_bytes = len(text) if text.isascii() else len(text.encode())
        if self.spare_tokens is not None and num_bytes + self.spare_tokens <= self.model.text_max_tokens:
            return num_bytes // 4 + self.spare_tokens
        return _counted(self.count_tokens, text)

    def clip(self, row: int, given: Given, *, image: ImageRef | None, sound: SoundRef | None, clip_id: str) -> Clip:
        """Of a row in which nothing is wrong."""
        model = self.model
        resolution = given["resolution"] or model.default_resolution
        if image is not None:
            ratio = nearest_ratio(model, resolution=resolution, height=image.height, width=image.width)
        else:
            ratio = given["ratio"] or model.default_ratio
        duration_s = given["duration"] or model.default_duration_s
        return Clip(
            clip_id=clip_id,
            row=row,
            prompt=self._fitted(given["prompt"]),
            negative_prompt=self._negative(given["negative_prompt"]),
            image=image,
            audio=given["audio"] is not False,
            audio_in=sound,
            resolution=resolution,
            ratio=ratio,
            duration_s=duration_s,
            seed=default_seed(clip_id) if given["seed"] is None else given["seed"],
            steps=given["steps"] or model.steps,
            guidance=given["guidance"],
            priority=given["priority"] or 0,
            shape=self._shape(resolution, ratio, duration_s),
        )

    def _shape(self, resolution: str, ratio: str, duration_s: int) -> ClipShape:
        size = (resolution, ratio, duration_s)
        if size not in self._shapes:
            self._shapes[size] = clip_shape(self.model, resolution=resolution, ratio=ratio, duration_s=duration_s)
        return self._shapes[size]

    @cached_property
    def _shapes(self) -> dict[tuple[str, str, int], ClipShape]:
        return {}

    def _negative(self, given: str | None) -> str | None:
        if not self.model.is_guided:
            return None
        return self.model.sampling.negative_prompt if given is None else self._fitted(given)

    def _fitted(self, text: str) -> str:
        """The text, or where texts are to be cut the longest beginning of it that has few enough tokens."""
        most = self.model.text_max_tokens
        if not self.truncate_text or self.num_tokens(text) <= most:
            return text
        return text[: bisect_right(range(len(text)), most, key=lambda end: self.count_tokens(text[:end])) - 1]


@dataclass(frozen=True, kw_only=True)
class RowChecker:
    """Says what is wrong with rows."""

    rules: Rules
    findings: Findings

    def check(self, row: int, given: Given, *, sound: SoundRef | None) -> bool:
        """Whether all is well, but for the clip id, and what image and sound files hold, which are judged elsewhere."""
        before = len(self.findings.items)
        self._check_texts(row, given)
        self._check_numbers(row, given)
        self._check_size(row, given)
        if given["audio_in"] is not None:
            self._check_sound(row, given, sound)
        return len(self.findings.items) == before

    def _check_texts(self, row: int, given: Given) -> None:
        for name in ("prompt", "negative_prompt"):
            text = given[name]
            if name == "prompt" and not _is_seen(text or ""):
                self.findings.add(row, name, quoted(text), "some text")
            elif text:
                self._check_length(row, name, text)

    def _check_length(self, row: int, name: str, text: str) -> None:
        """Never cut silently: both numbers are said."""
        if len(text) > MAX_CHARS_CJK:
            cjk = len(CJK.findall(text[:JUDGED_CHARS])) * 2 > min(len(text), JUDGED_CHARS)
            most, words = (MAX_CHARS_CJK, " (more than half are CJK)") if cjk else (MAX_CHARS, "")
            if len(text) > most:
                self.findings.add(row, name, f"{len(text)} characters{words}", f"at most {most} characters")
                return
        most = self.rules.model.text_max_tokens
        tokens = 0 if self.rules.truncate_text else self.rules.num_tokens(text)
        if tokens > most:
            self.findings.add(row, name, f"{tokens} tokens", f"at most {most} tokens")

    def _check_numbers(self, row: int, given: Given) -> None:
        limits = (("seed", 0, MAX_SEED), ("steps", 1, MAX_STEPS), ("priority", -MAX_PRIORITY, MAX_PRIORITY))
        for name, least, most in limits:
            if given[name] is not None and not least <= given[name] <= most:
                self.findings.add(row, name, quoted(given[name]), f"an integer from {least} to {most}")
        guidance, model = given["guidance"], self.rules.model
        if guidance is not None and not (math.isfinite(guidance) and guidance >= 0):
            self.findings.add(row, "guidance", quoted(guidance), "a finite number of 0 or more")
        for name, has in (("guidance", model.first_stage == "base"), ("negative_prompt", model.is_guided)):
            if given[name] is not None and not has:
                self.findings.add(row, name, quoted(given[name]), f"nothing: model {model.name} is not guided")

    def _check_sound(self, row: int, given: Given, sound: SoundRef | None) -> None:
        """`sound` is None where the file cannot be used, which was said already."""
        got = "a sound" if isinstance(given["audio_in"], dict) else quoted(given["audio_in"])
        model = self.rules.model
        duration_s = given["duration"] or model.default_duration_s
        if not model.takes_sound:
            expected = f"nothing: model {model.name} follows a given sound in its guided stage (model.first_stage=base)"
            self.findings.add(row, "audio_in", got, expected)
        elif given["audio"] is False:
            self.findings.add(row, "audio_in", got, "nothing where audio is false: a clip without sound follows none")
        elif sound is not None and duration_s in model.durations_s and sound.seconds < duration_s - SOUND_SLACK_S:
            expected = f"at least the {duration_s} s of the clip (a longer one is cut)"
            self.findings.add(row, "audio_in", f"{got}, {sound.seconds:.2f} s long", expected)

    def _check_size(self, row: int, given: Given) -> None:
        """The ratio of a row with an image is not regarded: the image decides."""
        model = self.rules.model
        known = self._check_choice(row, "resolution", given, model.sizes)
        if given["image"] is None:
            resolution = given["resolution"] if known and given["resolution"] else model.default_resolution
            self._check_choice(row, "ratio", given, model.sizes[resolution])
        self._check_choice(row, "duration", given, model.durations_s)

    def _check_choice(self, row: int, name: str, given: Given, allowed: Collection[T]) -> bool:
        value = given[name]
        if value is None or value in allowed:
            return True
        self.findings.add(row, name, quoted(value), "one of " + ", ".join(str(each) for each in allowed))
        return False


@lru_cache(maxsize=8)
def _counted(count_tokens: Callable[[str], int], text: str) -> int:
    """A text is asked for more than once while its row is read."""
    return count_tokens(text)


def _is_seen(text: str) -> bool:
    """Whether anything but space, control and format characters is in it."""
    return any(not sign.isspace() and unicodedata.category(sign) not in ("Cc", "Cf") for sign in text)
