"""The HTTP server around the routes: reading, logging, faults, TLS, and an end that leaves nothing open."""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import ssl
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from standins.gitlab.faults import Fault
from standins.gitlab.wire import Request, Response

_LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>You need to sign in.</body></html>"
_READ_LIMIT_S = 60


@dataclass(frozen=True)
class Exchange:
    """One request with its answer; `response` is None where a fault left none. `template` is the route's."""

    request: Request
    response: Response | None
    template: str = ""
    fault: str = ""


@dataclass
class Log:
    """All exchanges in the order of their ends."""

    exchanges: list[Exchange] = field(default_factory=list)

    def matching(self, method: str, path: str) -> list[Exchange]:
        return [
            exchange
            for exchange in self.exchanges
            if exchange.request.method == method and exchange.request.path == path
        ]


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Serves `respond` (request in, answer and the route's template out) until `close`."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(
        self,
        host: str,
        port: int,
        respond: Callable[[Request], tuple[Response, str]],
        certificate: Path | None = None,
    ) -> None:
        """Listen on `host`; port 0 takes a free one. `certificate` holds a key and its certificate in PEM."""
        self.respond = respond
        self.log = Log()
        self.faults: list[Fault] = []
        self.errors: list[BaseException] = []
        self.closing = threading.Event()
        self.clock_ahead_s = 0.0
        self._open: set[Any] = set()
        self._guard = threading.Lock()
        super().__init__((host, port), _Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # The handshake waits for the handler's first read, so that a client that refuses it blocks no other.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, name="gitlab")
        self._thread.start()

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for the host's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        # A client that hangs up or distrusts the certificate is the client's affair; the rest is a bug here.
        if error is not None and not isinstance(error, OSError):
            self.errors.append(error)

    def fault_for(self, request: Request) -> Fault | None:
        with self._guard:
            return next((fault for fault in self.faults if fault.takes(request.method, request.path)), None)

    def record(self, exchange: Exchange) -> None:
        with self._guard:
            self.log.exchanges.append(exchange)

    def close(self) -> None:
        """Stop; calls under way are cut, their threads end."""
        self.closing.set()
        self.shutdown()
        self._thread.join()
        with self._guard:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "nginx"
    sys_version = ""
    timeout = _READ_LIMIT_S
    server: Server

    def log_message(self, *_: object) -> None:
        """Nothing: the log is `Server.log`."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The `Date` header's value, by the server's own clock."""
        return super().date_time_string((time.time() if timestamp is None else timestamp) + self.server.clock_ahead_s)

    def _serve(self) -> None:
        # One call a connection: no client keeps a socket that a test would have to close.
        self.close_connection = True
        request = self._read()
        fault = self.server.fault_for(request)
        if fault is None:
            answered, template = self.server.respond(request)
            self.server.record(Exchange(request, answered, template))
            self._write(answered)
            return
        template = ""
        response: Response | None = None
        if fault.kind in {"slow", "cut"} or fault.done_first:
            self.server.closing.wait(fault.delay_s)
            response, template = self.server.respond(request)
        if fault.kind != "slow":
            response = _faulty(fault) or (response if fault.kind == "cut" else None)
        self.server.record(Exchange(request, response, template, fault.kind))
        if fault.kind == "silence":
            self.server.closing.wait()
        elif fault.kind == "not-http":
            self.wfile.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        elif response is not None:
            self._write(response, cut=fault.kind == "cut")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815 - http.server looks for these names

    def _read(self) -> Request:
        parts = urllib.parse.urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(
            method=self.command,
            path=parts.path,
            query=urllib.parse.parse_qs(parts.query, keep_blank_values=True),
            headers=headers,
            body=self._read_chunks()
            if headers.get("transfer-encoding", "").lower() == "chunked"
            else self.rfile.read(int(headers.get("content-length", 0))),
        )

    def _read_chunks(self) -> bytes:
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _write(self, response: Response, *, cut: bool = False) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        if response.status not in {204, 304}:
            self.send_header("Content-Length", str(max(len(response.body), 2 if cut else 0)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body[: len(response.body) // 2] if cut else response.body)


def _faulty(fault: Fault) -> Response | None:
    if fault.kind == "status":
        return Response(fault.status, fault.body.encode(), {"Content-Type": fault.content_type})
    if fault.kind == "garbage":
        return Response(200, _LOGIN_PAGE, {"Content-Type": "text/html; charset=utf-8"})
    return None
