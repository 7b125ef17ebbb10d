"""Files from listed hosts: no redirects elsewhere, no addresses of private networks, and an end to every wait.

A name is looked up once; what was looked up is checked, and exactly that is connected to.
"""

import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

from pipeline.inputs.access import PORTS, InputAccess, WebAddress, locate_on_web
from pipeline.inputs.check import MAX_BYTES, check_bytes
from pipeline.inputs.header import BadInput

TRIES = 3  # servers and networks fail and recover; all tries share one time limit
PAUSE_S = 0.3
MAX_REDIRECTS = 3
MAX_ADDRESSES = 4  # of one name, tried in turn
PIECE_BYTES = 1 << 16
REDIRECTS = (301, 302, 303, 307, 308)
PASSING = (408, 425, 429, 500, 502, 503, 504)
FETCHABLE = "a file that can be fetched"
# Where clouds tell machines their secrets; refused whatever the settings allow. Some are in public ranges.
METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    )
)
NAT64 = ipaddress.ip_network("64:ff9b::/96")

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Passing(Exception):
    """May be better at the next try."""


def fetch(address: WebAddress, access: InputAccess) -> bytes:
    """Its bytes, at most 20 MB. BadInput if it cannot be had, or not from there."""
    deadline = time.monotonic() + access.timeout_s
    for number in range(1, TRIES + 1):
        try:
            return _follow(address, access, deadline)
        except _Passing as error:
            pause_s = PAUSE_S * 2**number
            if number == TRIES or time.monotonic() + pause_s >= deadline:
                raise BadInput(f"'{address.shown}', {error}", FETCHABLE) from error
            time.sleep(pause_s)
    raise AssertionError("unreachable")


def address_refused(address: IPAddress, *, allow_private: bool) -> str | None:
    """What is wrong with an address that a name leads to; None: it may be connected to."""
    address = _embedded(address)
    if address in METADATA or address.is_link_local:
        return "a metadata or link-local address"
    if address.is_multicast or address.is_unspecified or (address.is_reserved and not address.is_loopback):
        return "a reserved address"
    if not address.is_global and not allow_private:
        return "a private address"
    return None


def _embedded(address: IPAddress) -> IPAddress:
    """The IPv4 address inside, where an IPv6 address is one in disguise."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None) or address


def _follow(address: WebAddress, access: InputAccess, deadline: float) -> bytes:
    """Redirects stay on the host, and never leave https."""
    here = address
    for _ in range(MAX_REDIRECTS + 1):
        answer = _ask(here, access, deadline)
        if isinstance(answer, bytes):
            return answer
        there = urljoin(f"{here.scheme}://{here.host}:{here.port}{here.target}", answer)
        if there.partition("://")[0].lower() not in PORTS or "@" in there.partition("://")[2].partition("/")[0]:
            raise BadInput(f"'{address.shown}', redirected to something else than http(s)", FETCHABLE)
        try:
            before, here = here, locate_on_web(there.partition("#")[0], access)
        except BadInput as error:
            raise BadInput(f"'{address.shown}', redirected to {error.got}", "a file on the host itself") from error
        if here.host != before.host or (before.scheme == "https" and here.scheme != "https"):
            raise BadInput(f"'{address.shown}', redirected to {here.shown}", "a file on the host itself")
    raise BadInput(f"'{address.shown}', redirected more than {MAX_REDIRECTS} times", FETCHABLE)


def _ask(address: WebAddress, access: InputAccess, deadline: float) -> bytes | str:
    """The body, or where it is said to be."""
    try:
        with _connect(address, access, deadline) as inner:
            response = _request(address, _Timed(inner, deadline))
            if response.status in REDIRECTS:
                return response.getheader("Location") or ""
            return _body(response, address)
    except TimeoutError as error:
        raise _Passing(f"which took longer than {access.timeout_s:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise BadInput(f"'{address.shown}', whose certificate is wrong ({error.verify_message})", FETCHABLE) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Passing(f"which cannot be fetched ({type(error).__name__}: {str(error)[:100]})") from error


def _request(address: WebAddress, timed: "_Timed") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(address.host, address.port)
    connection.sock = timed
    usual = address.port == PORTS[address.scheme]
    headers = {"Host": address.host if usual else f"{address.host}:{address.port}", "Connection": "close"}
    connection.request("GET", address.target, headers={**headers, "User-Agent": "happyhorse", "Accept": "*/*"})
    return connection.getresponse()


def _body(response: http.client.HTTPResponse, address: WebAddress) -> bytes:
    if response.status in PASSING:
        raise _Passing(f"answered with {response.status}")
    if response.status != 200:
        raise BadInput(f"'{address.shown}', answered with {response.status}", FETCHABLE)
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise BadInput(f"'{address.shown}', packed although nobody asked for it", FETCHABLE)
    promised = response.length
    body = bytearray()
    try:
        check_bytes(promised or 0)
        while piece := response.read1(PIECE_BYTES):
            body += piece
            check_bytes(len(body))
    except BadInput as error:
        got = error.got if len(body) <= MAX_BYTES else f"more than {MAX_BYTES // 1_000_000} MB"
        raise BadInput(f"'{address.shown}', {got}", error.expected) from error
    if promised is not None and len(body) < promised:
        raise _Passing(f"which ended after {len(body)} of {promised} bytes")
    return bytes(body)


def _connect(address: WebAddress, access: InputAccess, deadline: float) -> socket.socket:
    error: OSError | None = None
    for place in _look_up(address, access)[:MAX_ADDRESSES]:
        left = min(access.connect_timeout_s, deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError
        try:
            plain = socket.create_connection((place, address.port), timeout=left)
        except OSError as each:
            error = each
            continue
        if address.scheme == "http":
            return plain
        try:
            return ssl.create_default_context().wrap_socket(plain, server_hostname=address.host.strip("[]"))
        except BaseException:
            plain.close()
            raise
    raise _Passing(f"which cannot be connected to ({error})")


def _look_up(address: WebAddress, access: InputAccess) -> list[str]:
    """Where a name leads. One bad address among several condemns it: which one is used should not be up to chance."""
    try:
        found = socket.getaddrinfo(address.host.strip("[]"), address.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise _Passing(f"whose host is not known ({error})") from error
    places = list(dict.fromkeys(str(each[4][0]) for each in found))
    for place in places:
        problem = address_refused(ipaddress.ip_address(place), allow_private=access.allow_private)
        if problem:
            expected = "one that is public" if access.allow_private else "one that is public, or images.allow_private"
            raise BadInput(f"'{address.shown}', a host at {problem}, {place}", expected)
    return places


class _Timed:
    """A socket as `http.client` uses one, every read and write of which ends at the deadline."""

    def __init__(self, inner: socket.socket, deadline: float) -> None:
        self._inner, self._deadline = inner, deadline

    def sendall(self, data: bytes) -> None:
        self._limited().sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._limited), PIECE_BYTES)

    def close(self) -> None:
        """Left to whoever connected: `http.client` closes before it reads."""

    def _limited(self) -> socket.socket:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._inner.settimeout(left)
        return self._inner


class _TimedReader(io.RawIOBase):
    def __init__(self, inner: Callable[[], socket.socket]) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._inner().recv_into(buffer)
