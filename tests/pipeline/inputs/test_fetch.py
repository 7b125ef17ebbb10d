"""Images from the web: only from listed hosts at public addresses, in bounded time and size, whatever a server does."""

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from pipeline.inputs.access import InputAccess, locate_on_web
from pipeline.inputs.fetch import address_refused, fetch
from pipeline.inputs.header import BadInput
from tests.image_server import ImageServer, body, endless, in_turn, make_certificate, redirect, serve, status
from tests.manifests import picture

HUGE = 20_000_001


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with serve() as running:
        yield running


def access_to(*servers: ImageServer, **changes: Any) -> InputAccess:
    hosts = tuple(server.host for server in servers)
    return InputAccess(hosts=hosts, **({"allow_private": True, "timeout_s": 10.0} | changes))


def get(url: str, access: InputAccess) -> bytes:
    return fetch(locate_on_web(url, access), access)


def refusal(url: str, access: InputAccess) -> str:
    with pytest.raises(BadInput) as caught:
        get(url, access)
    return str(caught.value)


def test_an_image_from_a_listed_host(server: ImageServer) -> None:
    server.answers["/a b/图.png"] = server.answers["/a%20b/%E5%9B%BE.png"] = body(picture())
    assert get(server.url("/a%20b/图.png?size=1"), access_to(server)) == picture()
    assert server.asked == ["/a%20b/%E5%9B%BE.png?size=1"]


def test_proxies_of_the_environment_are_not_asked(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.answers["/a.png"] = body(picture())
    assert get(server.url("/a.png"), access_to(server)) == picture()


def test_redirects_on_the_host_itself_are_followed_three_times(server: ImageServer) -> None:
    for number in range(4):
        server.answers[f"/{number}"] = redirect(f"/{number + 1}" if number % 2 else server.url(f"/{number + 1}"))
    server.answers["/4"] = body(picture())
    assert get(server.url("/1"), access_to(server)) == picture()
    assert "redirected more than 3 times" in refusal(server.url("/0"), access_to(server))


def test_a_redirect_in_a_circle_ends(server: ImageServer) -> None:
    server.answers["/a"] = redirect("/a")
    assert "redirected more than 3 times" in refusal(server.url("/a"), access_to(server))
    assert len(server.asked) == 4


def test_a_redirect_to_another_host_is_refused_even_to_a_listed_one(server: ImageServer) -> None:
    with serve() as other:
        other.answers["/secret"] = body(picture())
        elsewhere = other.url("/secret", host="127.0.0.1")
        server.answers["/a"] = redirect(elsewhere)
        access = access_to(server)
        said = refusal(server.url("/a"), access)
        assert f"'{server.url('/a')}', redirected to '{elsewhere}', expected a file on the host itself" in said
        listed = replace(access, hosts=(*access.hosts, f"127.0.0.1:{other.port}"))
        assert f"redirected to {elsewhere}, expected a file on the host itself" in refusal(server.url("/a"), listed)
        assert other.asked == []


@pytest.mark.parametrize(
    "to",
    ["http://169.254.169.254/latest/meta-data/", "//169.254.169.254/", "file:///etc/passwd", "ftp://localhost/a", ""],
)
def test_redirects_to_what_must_not_be_reached(server: ImageServer, to: str) -> None:
    server.answers["/a"] = redirect(to.replace("HOST", server.host))
    server.answers["/b"] = body(picture())
    access = access_to(server)
    assert refusal(server.url("/a"), access)
    assert set(server.asked) == {"/a"}


@pytest.mark.parametrize("to", ["http://user:word@HOST/b", "http://localhost:1/b", "http://HOST@localhost:1/"])
def test_redirects_to_the_host_by_other_ways(server: ImageServer, to: str) -> None:
    server.answers["/a"] = redirect(to.replace("HOST", server.host))
    assert refusal(server.url("/a"), access_to(server))
    assert server.asked == ["/a"]


@pytest.mark.parametrize("headers", [True, False], ids=["body", "headers"])
def test_a_slow_answer_is_cut(server: ImageServer, headers: bool) -> None:
    server.answers["/a"] = endless(b"x", pause_s=0.05, headers=headers)
    began = time.monotonic()
    assert "which took longer than 1 s" in refusal(server.url("/a"), access_to(server, timeout_s=1.0))
    assert time.monotonic() - began < 3


def test_a_server_that_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        access = InputAccess(hosts=(f"localhost:{port}",), allow_private=True, timeout_s=0.5)
        began = time.monotonic()
        assert "took longer than 0.5 s" in refusal(f"http://localhost:{port}/a", access)
        assert "took longer than 0.5 s" in refusal(f"https://localhost:{port}/a", access)
        assert time.monotonic() - began < 3


def test_a_huge_body_is_not_read(server: ImageServer) -> None:
    server.answers["/said"] = body(b"x", length=HUGE)
    server.answers["/unsaid"] = endless(bytes(1 << 20))
    assert "got '" in (said := refusal(server.url("/said"), access_to(server)))
    assert said.endswith("20.0 MB, expected at most 20 MB")
    assert refusal(server.url("/unsaid"), access_to(server)).endswith("more than 20 MB, expected at most 20 MB")


def test_a_length_that_lies(server: ImageServer) -> None:
    server.answers["/long"] = body(b"x" * 10, length=1000)
    assert "which ended after 10 of 1000 bytes" in refusal(server.url("/long"), access_to(server, timeout_s=3.0))
    server.answers["/short"] = body(b"x" * 1000, length=10)
    assert get(server.url("/short"), access_to(server)) == b"x" * 10


def test_a_packed_body_is_refused(server: ImageServer) -> None:
    server.answers["/a"] = body(b"x", Content_Encoding="gzip")
    assert "packed although nobody asked for it" in refusal(server.url("/a"), access_to(server))


def test_errors_that_pass_are_tried_again_and_others_are_not(server: ImageServer) -> None:
    server.answers["/busy"] = in_turn(status(503), status(429), body(picture()))
    assert get(server.url("/busy"), access_to(server)) == picture()
    assert "answered with 404" in refusal(server.url("/gone?token=abc"), access_to(server))
    assert server.asked == ["/busy"] * 3 + ["/gone?token=abc"]


def test_a_listed_name_at_a_private_address(server: ImageServer) -> None:
    server.answers["/a"] = body(picture())
    said = refusal(server.url("/a"), access_to(server, allow_private=False))
    assert "a host at a private address, " in said
    assert said.endswith("expected one that is public, or images.allow_private")
    assert server.asked == []


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "017700000001", "[::ffff:127.0.0.1]"])
def test_odd_spellings_of_this_machine(server: ImageServer, host: str) -> None:
    access = InputAccess(hosts=(f"{host}:{server.port}",), timeout_s=3.0)
    assert refusal(server.url("/a", host=host), access)
    assert server.asked == []


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "0.0.0.0"])
def test_metadata_addresses_are_refused_even_where_private_ones_are_allowed(host: str) -> None:
    access = InputAccess(hosts=(host,), allow_private=True, timeout_s=3.0)
    began = time.monotonic()
    assert "address, " in refusal(f"http://{host}/latest/meta-data/", access)
    assert time.monotonic() - began < 1


ADDRESSES = {
    "public": "1.1.1.1 2606:4700::1111 ::ffff:1.1.1.1 64:ff9b::101:101",
    "private": "10.0.0.1 172.16.0.1 192.168.1.1 127.0.0.1 127.9.9.9 100.64.0.1 192.0.2.1 ::1 fd12::1 ::ffff:10.0.0.1 "
    "64:ff9b::a00:1 2002:a00:1::",
    "never": "169.254.169.254 169.254.1.1 fe80::1 fd00:ec2::254 224.0.0.1 ff02::1 0.0.0.0 :: 255.255.255.255 240.0.0.1 "
    "100.100.100.200 168.63.129.16 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::",
}


@pytest.mark.parametrize("kind", list(ADDRESSES))
def test_what_addresses_may_be_connected_to(kind: str) -> None:
    for each in map(ip_address, ADDRESSES[kind].split()):
        assert (address_refused(each, allow_private=False) is None) == (kind == "public"), each
        assert (address_refused(each, allow_private=True) is None) == (kind != "never"), each


def test_the_address_that_was_checked_is_the_one_connected_to(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: a name that leads elsewhere at the second look-up. Names are looked up once."""
    server.answers["/a"] = body(picture())
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, *args: Any, **kwargs: Any) -> Any:
        if host != "rebinding.example":
            return real(host, *args, **kwargs)
        looked_up.append(host)
        return real("127.0.0.1" if len(looked_up) == 1 else "127.0.0.2", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    access = InputAccess(hosts=(f"rebinding.example:{server.port}",), allow_private=True)
    assert get(server.url("/a", host="rebinding.example"), access) == picture()
    assert looked_up == ["rebinding.example"]


def test_one_private_address_among_public_ones_condemns_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (place, 80)) for place in ("1.1.1.1", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert "a private address, 10.0.0.1" in refusal("http://two.example/a", InputAccess(hosts=("two.example",)))


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path / "own.pem")
    with serve(certificate=certificate) as secure:
        secure.answers["/a"] = body(picture())
        assert "whose certificate is wrong" in refusal(secure.url("/a"), access_to(secure))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert get(secure.url("/a"), access_to(secure)) == picture()
        other = InputAccess(hosts=(f"127.0.0.2:{secure.port}",), allow_private=True)
        assert refusal(secure.url("/a", host="127.0.0.2"), other)  # it listens on another address only


def test_https_is_not_left(tmp_path: Path, server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path / "own.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server.answers["/a"] = body(picture())
    with serve(certificate=certificate) as secure:
        secure.answers["/a"] = redirect(server.url("/a"))
        assert "expected a file on the host itself" in refusal(secure.url("/a"), access_to(secure, server))
    assert server.asked == []
