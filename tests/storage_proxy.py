"""A real HTTP proxy in front of an S3 server, that misbehaves on request: what networks and poor servers do.

It passes everything on as it came, the signed Host header too, so a server that checks signatures is content.
"""

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

from tests.s3_server import S3Server

# drop: hung up on before the server hears of it; lose: done, and the answer lost; cut: half an answer;
# rot: a byte of what is uploaded changes on the way; stall: no answer at all, and the server hears of nothing.
What = Literal["drop", "lose", "cut", "rot", "stall"]
UPSTREAM_TIMEOUT_S = 60.0
STALL_S = 20.0  # longer than whoever asks is willing to wait


@dataclass(kw_only=True)
class Fault:
    """Happens to the next `times` requests of one method, or of any, whose path and query hold `path`."""

    method: str = ""
    what: What | int  # a number: this HTTP status is the answer, and the server hears of nothing
    path: str = ""
    code: str = "Made"  # the <Code> of that answer
    times: int = 1


@dataclass
class StorageProxy:
    """What is wrong with it is in `faults`, the first that fits goes; what was asked for is in `asked`."""

    server: S3Server  # as seen through the proxy
    faults: list[Fault] = field(default_factory=list)
    without: set[str] = field(default_factory=set)  # request headers, in lower case, that never arrive
    asked: list[str] = field(default_factory=list)  # "PUT /bucket/key"
    page_size: int | None = None  # of listings; only where signatures are not checked
    notice: Callable[[str], None] | None = None  # called with each of these before it is passed on
    is_away: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: threading.Event = field(default_factory=threading.Event)
    _listen: Callable[[], HTTPServer] | None = None
    _listener: HTTPServer | None = None

    def fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.asked.append(f"{method} {path}")
            if self.notice:
                self.notice(self.asked[-1])
            found = next((f for f in self.faults if f.times and f.method in ("", method) and f.path in path), None)
            if found:
                found.times -= 1
            return found

    def away(self, seconds: float) -> None:
        """Nobody listens for so long: connections are refused, and those there are hung up on."""
        self.is_away = True
        self._close()
        threading.Thread(target=self._come_back, args=(seconds,), daemon=True).start()

    def listen(self, make: Callable[[], HTTPServer]) -> None:
        self._listen, self._listener = make, make()
        threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._close()

    def stall(self) -> None:
        self._closed.wait(STALL_S)

    def _come_back(self, seconds: float) -> None:
        if not self._closed.wait(seconds):
            assert self._listen
            self.listen(self._listen)
            self.is_away = False

    def _close(self) -> None:
        if self._listener:
            self._listener.shutdown()
            self._listener.server_close()
            self._listener = None


@contextmanager
def proxied(upstream: S3Server) -> Iterator[StorageProxy]:
    host, upstream_port = urlsplit(upstream.endpoint_url).netloc.split(":")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _pass_on(self) -> None:
            fault = proxy.fault(self.command, self.path)
            what = fault.what if fault else None
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if what == "stall":
                proxy.stall()
            if what in ("drop", "stall") or proxy.is_away:
                self._hang_up()
            elif fault and isinstance(what, int):
                said = f"<Error><Code>{fault.code}</Code><Message>made by a test</Message></Error>".encode()
                self._answer(what, {"Content-Type": "application/xml"}, said)
            else:
                if what == "rot" and body:
                    body = body[:-1] + bytes([body[-1] ^ 1])
                paged = proxy.page_size is not None and "list-type=2" in self.path
                path = f"{self.path}&max-keys={proxy.page_size}" if paged else self.path
                status, headers, answer = self._ask(path, body)
                if what == "lose":
                    self._hang_up()
                else:
                    self._answer(status, headers, answer, half=what == "cut")

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

        def _ask(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in proxy.without}
            connection = http.client.HTTPConnection(host, int(upstream_port), timeout=UPSTREAM_TIMEOUT_S)
            try:
                connection.request(self.command, path, body, headers)
                answer = connection.getresponse()
                return answer.status, dict(answer.getheaders()), answer.read()
            finally:
                connection.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes, *, half: bool = False) -> None:
            self.send_response_only(status)
            length = headers.pop("Content-Length", str(len(body))) if self.command == "HEAD" else str(len(body))
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if half else body)
            if half:
                self._hang_up()

        def _hang_up(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that was killed hangs up in the middle."""

    with socket.socket() as place:  # keeps the port ours while nobody listens there
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        at = place.getsockname()
        proxy = StorageProxy(S3Server(f"http://{at[0]}:{at[1]}", upstream.access_key, upstream.secret_key))
        proxy.listen(lambda: Server(at, Handler))
        try:
            yield proxy
        finally:
            proxy.close()
