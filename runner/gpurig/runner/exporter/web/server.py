"""The HTTP side of the exporter: /metrics, /healthz, and nothing that a client can change."""

from __future__ import annotations

import errno
import gzip
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.runner.exporter.exposition.text_format import OPENMETRICS_TYPE, TEXT_TYPE, wants_openmetrics
from gpurig.runner.exporter.web.web_access import Rules, WebAccess

_INDEX = b"""<!doctype html><title>gpurig</title><h1>gpurig exporter</h1>
<p><a href="/metrics">metrics</a> <a href="/healthz">health</a></p>
"""


# Series repeat their labels: the fastest level makes a tenth of them in 0.2 ms, higher ones save little more.
_GZIP_LEVEL = 1


def wants_gzip(accept_encoding: str) -> bool:
    """Whether a client with this `Accept-Encoding` header takes gzip; a weight of 0 means not."""
    for one in accept_encoding.lower().split(","):
        coding, *parameters = (part.strip() for part in one.split(";"))
        if coding == "gzip":
            return not any(re.fullmatch(r"q=0(\.0*)?", text) for text in parameters)
    return False


class Encode(Protocol):
    """Gives the metrics of this moment."""

    def __call__(self, *, openmetrics: bool) -> bytes:
        """In OpenMetrics, or in Prometheus' text format."""


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    server: MetricsServer
    protocol_version = "HTTP/1.1"
    server_version = "gpurig"
    sys_version = ""
    # A client that says nothing must not keep a thread.
    timeout = 10
    # Head and body in one write, at once: else the body waits 40 ms for the client's delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    @property
    def _rules(self) -> Rules | None:
        return self.server.access.rules() if self.server.access else None

    def do_GET(self) -> None:
        rules = self._rules
        if rules is not None and not rules.gatekeeper.allows(self.headers.get("Authorization")):
            self._answer(HTTPStatus.UNAUTHORIZED, "text/plain; charset=utf-8", b"Unauthorized\n")
            return
        path = self.path.partition("?")[0]
        if path == "/metrics":
            openmetrics = wants_openmetrics(self.headers.get("Accept", ""))
            body = self.server.encode(openmetrics=openmetrics)
            zipped = wants_gzip(self.headers.get("Accept-Encoding", ""))
            if zipped:
                body = gzip.compress(body, compresslevel=_GZIP_LEVEL, mtime=0)
            self._answer(HTTPStatus.OK, OPENMETRICS_TYPE if openmetrics else TEXT_TYPE, body, zipped=zipped)
        elif path == "/healthz":
            stale = self.server.stale()
            status = HTTPStatus.SERVICE_UNAVAILABLE if stale else HTTPStatus.OK
            text = f"stale: {', '.join(stale)}\n" if stale else "ok\n"
            self._answer(status, "text/plain; charset=utf-8", text.encode())
        elif path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", _INDEX)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"there are /metrics and /healthz\n")

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes, *, zipped: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if zipped:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Basic realm="gpurig"')
        for name, value in (rules.config.headers if (rules := self._rules) else {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: a line for every scrape is noise."""


class MetricsServer(ThreadingHTTPServer):
    """Serves one exporter's metrics on one address."""

    daemon_threads = True

    def __init__(
        self,
        host: str,
        port: int,
        encode: Encode,
        stale: Callable[[], list[str]],
        access: WebAccess | None = None,
    ) -> None:
        """Bind; nothing is served yet.

        Args:
            host: an IP address, of version 4 or 6.
            port: 0 for any free one.
            encode: gives what /metrics shows.
            stale: names of what has not been read for too long, for /healthz.
            access: TLS and who may ask; plain HTTP for everybody where None.

        Raises:
            PrerequisiteError: the port is taken or not allowed. InputError: this machine has no such address.
        """
        self.encode = encode
        self.stale = stale
        self.access = access
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise _bind_problem(host, port, error) from error

    def server_bind(self) -> None:
        """Bind without asking DNS for this machine's name, as the base class would; `::` serves IPv4 too."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection; called in its own thread, so that a slow handshake keeps nobody waiting."""
        context = self.access.rules().context if self.access else None
        if context is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(_Handler.timeout)
        with context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)
            # The connection's end is said by TLS too, as HTTP/1.1 over TLS asks; a client that has gone does not hear.
            with suppress(OSError, ValueError):
                secured.unwrap()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away while it is answered is no news."""

    @property
    def url(self) -> str:
        """Where the metrics are."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        scheme = "https" if self.access and self.access.rules().context else "http"
        return f"{scheme}://{host}:{self.server_port}/metrics"

    def start(self) -> None:
        """Serve in the background until `stop`."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="http", daemon=True).start()

    def stop(self) -> None:
        """End serving and free the port."""
        self.shutdown()
        self.server_close()


def _bind_problem(host: str, port: int, error: OSError) -> InputError | PrerequisiteError:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return PrerequisiteError(
            f"something listens on {where} already",
            hint=f"choose another port with --listen, or find it: ss -ltnp 'sport = :{port}'",
        )
    if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
        return InputError(f"this machine has no address {host}", hint="ip address shows what it has")
    if error.errno == errno.EACCES:
        return PrerequisiteError(f"no permission to listen on {where}", hint="choose a port from 1024 on")
    return PrerequisiteError(f"cannot listen on {where}: {error.strerror}", hint="choose another address with --listen")
