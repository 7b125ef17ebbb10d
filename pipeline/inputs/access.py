"""What the images and sounds of a manifest may be read from: its own folder, listed folders and hosts, nothing else.

The driver and the workers ask here, each for itself: a worker is told the rules, not that they were kept.
"""

import os
import posixpath
import re
from dataclasses import dataclass, replace
from typing import TypeAlias
from urllib.parse import quote, urlsplit

from pipeline.errors import ConfigError
from pipeline.inputs.header import BadInput
from pipeline.manifest.cells import quoted
from pipeline.redact import address_problem, redacted
from pipeline.store import key_problem, open_store

HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9._-]{0,252}[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
PORTS = {"http": 80, "https": 443}
ODD_SIGNS = re.compile(r"[\x00-\x20\x7f\\]")  # in addresses on the web; parsers do not agree on what they mean
SAFE_IN_TARGET = "/?&=%:@!$'()*+,;~-._[]|"


@dataclass(frozen=True, kw_only=True)
class InputAccess:
    """Beyond a manifest's own folder. No secrets; roots become absolute."""

    roots: tuple[str, ...] = ()  # folders and s3://bucket/prefix
    hosts: tuple[str, ...] = ()  # of http:// and https://: name, or name:port where it is not the usual one
    allow_private: bool = False  # hosts may have addresses of private networks and of the machine itself
    connect_timeout_s: float = 5.0
    timeout_s: float = 60.0  # of one file, with redirects and second tries

    def __post_init__(self) -> None:
        for root in self.roots:
            if address_problem(root):
                raise ConfigError(f"images.roots: {address_problem(root)}")
        object.__setattr__(self, "roots", tuple(open_store(root).uri for root in self.roots))
        object.__setattr__(self, "hosts", tuple(host.lower() for host in self.hosts))
        for host in self.hosts:
            if not HOST.fullmatch(host):
                raise ConfigError(f"images.hosts: got {redacted(host)!r}, expected a name, or a name and :PORT")
        for name in ("connect_timeout_s", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"images.{name} is {getattr(self, name)}, expected more than 0")

    def below(self, *folders: str) -> "InputAccess":
        """The same, with a manifest's own folders before the roots."""
        return replace(self, roots=tuple(dict.fromkeys((*folders, *self.roots))))


OWN_FOLDER = InputAccess()


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """Below a root; `real` is where the links in its path lead, which is below one too."""

    path: str
    real: str


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    root: str
    key: str


@dataclass(frozen=True, kw_only=True)
class WebAddress:
    """What is asked of whom: `target` is path and query, fit for a request line."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def shown(self) -> str:
        """Without its query, which may be a secret."""
        usual = self.port == PORTS[self.scheme]
        path, query, _ = self.target.partition("?")
        return f"{self.scheme}://{self.host}{'' if usual else f':{self.port}'}{path}{query and '?...'}"


Place: TypeAlias = LocalFile | StoredObject | WebAddress


def shown(address: str) -> str:
    """An address for a message: as Python writes it, without secrets."""
    return quoted(redacted(address))


def absolute(address: str, folder: str) -> str:
    """A full address; relative ones are below `folder`."""
    return address if "://" in address or address.startswith("/") else f"{folder.rstrip('/')}/{address}"


def locate(address: str, access: InputAccess, *, given: str | None = None) -> Place:
    """Where a full address points. BadInput where the rules do not allow it; `given`: as it stood in the manifest."""
    given = address if given is None else given
    if "@" in address.partition("://")[2].partition("/")[0]:
        raise BadInput(f"{shown(given)}, an address with a user name", "one without: secrets do not belong there")
    scheme, found, rest = address.partition("://")
    if found and scheme.lower() in PORTS:
        return locate_on_web(address, access)
    if not found or scheme == "file":
        return _locate_file(address.removeprefix("file://"), access, given)
    bucket, _, key = rest.partition("/")
    full = f"{scheme}://{bucket}{posixpath.normpath('/' + key)}"
    root, key = _root_of(full, [root for root in access.roots if "://" in root], access, given)
    return StoredObject(root=root, key=key)


def locate_on_web(address: str, access: InputAccess) -> WebAddress:
    """BadInput if the host is not listed, or where two readers of the address could understand two things."""
    if ODD_SIGNS.search(address) or "#" in address:
        raise BadInput(f"{shown(address)}, with spaces, control characters, # or \\", "them percent-encoded")
    try:
        parts = urlsplit(address)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError as error:
        raise BadInput(f"{shown(address)}, which is no address ({error})", "http(s)://HOST/PATH") from error
    host = f"[{host}]" if ":" in host else host
    port = PORTS[parts.scheme] if port is None else port
    listed = f"{host}:{port}" in access.hosts or (port == PORTS[parts.scheme] and host in access.hosts)
    if not listed:
        raise BadInput(shown(address), f"{_allowed(access)}, or a host that images.hosts lists")
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=SAFE_IN_TARGET)
    return WebAddress(scheme=parts.scheme, host=host, port=port, target=target)


def _locate_file(path: str, access: InputAccess, given: str) -> LocalFile:
    roots = [root for root in access.roots if "://" not in root]
    root, key = _root_of(posixpath.normpath(path), roots, access, given)
    path = f"{root.rstrip('/')}/{key}"
    real = os.path.realpath(path)
    if not any(_is_below(real, os.path.realpath(each)) for each in roots):
        raise BadInput(f"{shown(given)}, a link out of it", _allowed(access))
    return LocalFile(path=path, real=real)


def _root_of(full: str, roots: list[str], access: InputAccess, given: str) -> tuple[str, str]:
    """The first root that an address without `..` is below, and its key there."""
    root = next((root for root in roots if _is_below(full, root)), None)
    if root is None:
        raise BadInput(shown(given), _allowed(access))
    key = full.removeprefix(root.rstrip("/") + "/")
    problem = key_problem(key)
    if problem:
        raise BadInput(shown(given), f"another name: {problem}")
    return root, key


def _is_below(path: str, root: str) -> bool:
    return path.startswith(root.rstrip("/") + "/")


def _allowed(access: InputAccess) -> str:
    own, *others = [f"{root.rstrip('/')}/" for root in access.roots] or ["(it has none)"]
    return (
        f"a file below the manifest's own folder {own}"
        + "".join(f" or below {other}" for other in others)
        + " (images.roots=[...] allows more)"
    )
