"""Names for clips: those that a manifest gives, and for the other rows a hash of what they say. A name is a file's."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.manifest.cells import COLUMNS

SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SAFE_ID_WORDS = "1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit"
ID_DIGITS = 16
MAX_SEED = 2**31 - 1
SILENT = frozenset({"clip_id", "priority", "image", "audio_in"})  # do not name a row; files do by their content
SAYING = tuple(name for name in COLUMNS if name not in SILENT)
_HASH = re.compile(r"[0-9a-f]{16}")
_to_json = json.JSONEncoder(sort_keys=True).encode


class IdBook:
    """Gives every row of a manifest its clip id, in the order of the rows; ids are equal without regard to case."""

    def __init__(self) -> None:
        self._owners: dict[str | int, int] = {}  # id -> row; a hash as a number, which takes half the memory
        self._numbers: dict[str, int] = {}  # id -> the last number behind it

    def claim(self, clip_id: str, row: int) -> int | None:
        """Enters a given id; the row that has it already, if one does."""
        owner = self._owners.setdefault(_key(clip_id.lower()), row)
        return None if owner == row else owner

    def derive(self, row: int, given: Mapping[str, Any], contents: Mapping[str, str]) -> str:
        """Rows that say the same are different clips, with seeds of their own: the second is `<id>-2`."""
        clip_id = numbered = content_id(given, contents)
        number = self._numbers.get(clip_id, 1)
        while self.claim(numbered, row) is not None:
            number += 1
            numbered = f"{clip_id}-{number}"
        if number > 1:
            self._numbers[clip_id] = number
        return numbered


def content_id(given: Mapping[str, Any], contents: Mapping[str, str]) -> str:
    """Hash of what the row says about its clip; position, priority and carried columns do not change it.

    `contents`: the identity of what `image` and `audio_in` name, by column.
    """
    said = {name: given[name] for name in SAYING if given[name] is not None}
    said |= contents
    return hashlib.sha256(_to_json(said).encode()).hexdigest()[:ID_DIGITS]


def default_seed(clip_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"seed of {clip_id}".encode()).digest()[:4]) & MAX_SEED


def _key(clip_id: str) -> str | int:
    return int(clip_id, 16) if _HASH.fullmatch(clip_id) else clip_id
