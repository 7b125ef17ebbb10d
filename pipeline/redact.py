"""Addresses may carry secrets: a password before the host, a signature behind the path.

Neither is shown or kept.
"""

import re

USERINFO = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]{0,30}://)[^/\s?#@]*@")
QUERY = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]{0,30}://[^\s?#'\"]*\?)([^\s#'\"]*)")
SECRET_NAMES = re.compile(
    r"(?:^|[&;])[^=&;]*(?:signature|credential|token|password|passwd|pwd|secret|api-?_?key|auth|awsaccesskeyid|"
    r"(?<![a-z])sig(?![a-z])|(?<![a-z])key(?![a-z]))[^=&;]*=",
    re.IGNORECASE,
)
HIDDEN = "***"


def redacted(text: str) -> str:
    """The text, without user names and passwords in addresses and without queries that sign or authorise something."""
    if "://" not in text:
        return text
    text = USERINFO.sub(rf"\1{HIDDEN}@", text)
    return QUERY.sub(lambda found: found[1] + (HIDDEN if SECRET_NAMES.search(found[2]) else found[2]), text)


def address_problem(address: str) -> str | None:
    """Why an address cannot be a setting, which is shown and kept; None if it can."""
    if redacted(address) == address:
        return None
    return f"{redacted(address)} holds a secret, expected an address without (credentials come from the environment)"
