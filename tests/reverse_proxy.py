"""A reverse proxy as a process of its own: ``reverse_proxy.py PREFIX keep|strip``, until killed.

It passes ``PREFIX/PORT/…`` on to 127.0.0.1:PORT, as Databricks' driver proxy and
jupyter-server-proxy do: `strip` takes the prefix off (both, by default), `keep` leaves the path
whole (the latter's ``/proxy/absolute/``). Anything else is not found, which is what a page that
leaves its prefix meets.
"""

import http.client
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX, MODE = sys.argv[1:]
HOPS = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host"}


class Proxy(BaseHTTPRequestHandler):
    """Passes requests on."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        port, _, rest = self.path.removeprefix(f"{PREFIX}/").partition("/")
        if not self.path.startswith(f"{PREFIX}/") or not port.isdigit():
            self.send_error(404)
            return
        path = self.path if MODE == "keep" else f"/{rest}"
        length = int(self.headers.get("Content-Length", 0))
        asked = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOPS}
        asked.request(self.command, path, self.rfile.read(length), headers)
        answer = asked.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOPS | {"content-length", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 (the name that it is looked up by)

    def log_message(self, *words):
        """Say nothing."""


with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
    print(f"http://127.0.0.1:{server.server_address[1]}{PREFIX}", flush=True)
    server.serve_forever()
