"""An S3 server that lists very many objects and has none: a thousand keys a page, as the real ones do."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

PAGE = 1000
OBJECT = (
    "<Contents><Key>{key}</Key><LastModified>2026-11-20T12:00:00.000Z</LastModified>"
    '<ETag>"d41d8cd98f00b204e9800998ecf8427e"</ETag><Size>2048</Size><StorageClass>STANDARD</StorageClass></Contents>'
)


@dataclass
class Listing:
    """`count` objects named by `key` with its number put in."""

    key: str  # such as out/records/{0:08}.json
    count: int
    num_pages: int = field(default=0, init=False)  # that were asked for

    def page(self, start: int) -> bytes:
        self.num_pages += 1
        end = min(start + PAGE, self.count)
        objects = "".join(OBJECT.format(key=self.key.format(number)) for number in range(start, end))
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < self.count else ""
        is_cut = "true" if more else "false"
        text = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>bucket</Name>'
            f"<KeyCount>{end - start}</KeyCount><MaxKeys>{PAGE}</MaxKeys><IsTruncated>{is_cut}</IsTruncated>"
            f"{more}{objects}</ListBucketResult>"
        )
        return text.encode()


@contextmanager
def listing_server(listing: Listing) -> Iterator[str]:
    """Its address; every listing gets the same objects, whatever prefix is asked for."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            body = listing.page(int(asked.get("continuation-token", ["0"])[0]))
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
