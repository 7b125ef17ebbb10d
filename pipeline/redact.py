"""Addresses may carry secrets: a password before the host, a signature behind the path.

Neither is shown or kept. In time proportional to the text, whatever it is.
"""

import re

HIDDEN = "***"
WORDS = re.compile(r"([\s'\"<>]+)")
SECRET_NAME = re.compile(
    r"signature|credential|token|passw|pwd|secret|api[-_]?key|authori|accesskey|\bsig\b|\bkey\b|\bkey-pair",
    re.IGNORECASE,
)
NAME_CHARS = 100  # of a query's name that are looked at


def redacted(text: str) -> str:
    """The text, without user names and passwords in addresses and without queries that sign or authorise something."""
    if "://" not in text:
        return text
    return "".join(_word(each) if "://" in each else each for each in WORDS.split(text))


def address_problem(address: str) -> str | None:
    """Why an address cannot be a setting, which is shown and kept; None if it can."""
    if redacted(address) == address:
        return None
    return f"{redacted(address)} holds a secret, expected an address without (credentials come from the environment)"


def _word(word: str) -> str:
    scheme, *rest = word.split("://")
    word = "://".join((scheme, *map(_without_user, rest)))
    path, found, query = word.partition("?")
    names = (each.partition("=")[0][:NAME_CHARS] for each in re.split("[&;#]", query))
    return path + found + (HIDDEN if any(map(SECRET_NAME.search, names)) else query)


def _without_user(rest: str) -> str:
    """What follows `://`, without what stands before an @ in the host's part."""
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    user, found, name = host.rpartition("@")
    return HIDDEN + found + name + rest[len(host) :] if user or found else rest
