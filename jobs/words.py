"""The words after a command: `key=value`, split into text that nobody may touch and values that hydra reads.

Some commands also take words without a key, by their place: `manifest SOURCE TARGET`.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException

from pipeline.errors import ConfigError
from pipeline.redact import address_problem

# Taken verbatim, everything after the first `=`: these hold file names, addresses and words of people.
TEXT_KEYS = frozenset(
    "manifest output inbox to where reason clip weights address a b path only name findings tokenizer out "
    "webhook hook".split()
)
WORDS_OF_PEOPLE = frozenset("where reason clip only name hook".split())  # the others are addresses
ALIKE = 0.65  # of 1: a key that is less like what was typed was not meant


@dataclass(frozen=True, kw_only=True)
class Words:
    """What was typed, by key, in order. `values` holds whatever hydra's grammar makes of a word."""

    texts: dict[str, str]
    values: dict[str, Any]


def read_words(arguments: Iterable[str], *, positional: Sequence[str] = ()) -> Words:
    """`positional` are the keys, in order, that a word without one fills; such a word is text, taken verbatim.

    A word with `/` before its first `=` is an address, not a key: ./a=1.csv, s3://bucket/day=3/rows.parquet.
    """
    words = Words(texts={}, values={})
    open_places = iter(positional)
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if positional and (not equals or "/" in key):
            key, text = _next_place(argument, open_places, positional), argument
        elif not equals or not key:
            raise ConfigError(f"{argument!r} is not key=value")
        if key in words.texts or key in words.values:
            raise ConfigError(f"{key} is given twice")
        if key not in TEXT_KEYS and key not in positional:
            words.values[key] = _read_value(key, argument)
        elif not text:
            raise ConfigError(f"{key}= has no value")
        else:
            _check_address(key, text)
            words.texts[key] = text
    return words


def _check_address(key: str, text: str) -> None:
    problem = None if key in WORDS_OF_PEOPLE else address_problem(text)
    if problem:
        raise ConfigError(f"{key}: {problem}")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known key most like `word`, whether its group was typed or not: crf is near media.crf. None: none is."""

    def likeness(key: str) -> tuple[float, float]:
        whole = difflib.SequenceMatcher(None, word, key).ratio()
        last = difflib.SequenceMatcher(None, word.rpartition(".")[2], key.rpartition(".")[2]).ratio()
        return max(whole, last), whole

    best = max(known, key=likeness, default=None)
    return best if best is not None and likeness(best)[0] >= ALIKE else None


def _next_place(word: str, places: Iterator[str], positional: Sequence[str]) -> str:
    place = next(places, None)
    if place is None:
        wanted = " ".join(name.upper() for name in positional)
        raise ConfigError(f"{word!r} is one word too many, expected {wanted} and then key=value")
    return place


def _read_value(key: str, argument: str) -> Any:
    try:
        override = _PARSER.parse_override(argument)
    except HydraException as error:
        raise ConfigError(f"{argument}: the value cannot be read; quote it twice: \"{key}='...'\"") from error
    if override.type is not OverrideType.CHANGE or override.package is not None:
        raise ConfigError(f"{argument}: only key=value is understood here")
    if _is_sweep(override):
        raise ConfigError(f"{argument}: one value is expected; a list is written {key}=[...]")
    return override.value()


def _is_sweep(override: Override) -> bool:
    return bool(override.is_sweep_override())


_PARSER = OverridesParser.create()
