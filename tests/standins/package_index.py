"""A package index that wants a user and a password (PEP 503, basic authentication), with one package."""

from __future__ import annotations

import base64
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

WHEEL = "gpurig_test_package-1.0-py3-none-any.whl"


def _wheel() -> bytes:
    stream = io.BytesIO()
    info = "gpurig_test_package-1.0.dist-info"
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("gpurig_test_package.py", "NAME = 'gpurig_test_package'\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: gpurig-test-package\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return stream.getvalue()


class PackageIndex:
    """The index, while it is entered.

    Attributes:
        url: of its simple API, without user and password.
        authorized, refused: how many requests came with the right user and password, and with others or none.
    """

    def __init__(self, host: str, *, user: str, password: str) -> None:
        """Listen on a free port of that address."""
        self.host = host
        self.authorized = self.refused = 0
        self._expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers.get("Authorization") != index._expected:
                    # A client without a netrc asks first without.
                    index.refused += 1
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", "Basic")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                index.authorized += 1
                body = _wheel() if self.path.endswith(".whl") else f'<a href="{WHEEL}">{WHEEL}</a>'.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self.url = f"http://{host}:{self._server.server_port}/simple"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
