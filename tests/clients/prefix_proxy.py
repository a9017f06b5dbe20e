"""A small reverse proxy that serves a server under a path prefix."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from conftest import DEADLINE_SECONDS, Server

# Of one connection each.
OWN_HEADERS = ("connection", "transfer-encoding", "content-length")


@contextmanager
def prefixed(server: Server, prefix: str) -> Iterator[str]:
    """The address below which everything of the server is; nothing else is answered."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            upstream = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=DEADLINE_SECONDS)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in OWN_HEADERS}
            upstream.request(self.command, self.path.removeprefix(prefix), body, headers)
            response = upstream.getresponse()
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in OWN_HEADERS:
                    self.send_header(name, value)
            self.end_headers()
            while part := response.read1(65536):
                self.wfile.write(part)
            upstream.close()

        do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    # A browser opens more connections at once than the five that may wait by default.
    ThreadingHTTPServer.request_queue_size = 64
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{proxy.server_port}{prefix}/"
    proxy.shutdown()
