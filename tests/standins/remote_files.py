"""A server of files that are too large to exist: their first bytes, and holes of any length behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from standins.gitlab.faults import Fault, Kind
from standins.gitlab.server import Server
from standins.gitlab.wire import Request, Response

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
# What nobody should ever ask for of such a file.
_MOST = 64 * 2**20


@dataclass
class HollowFile:
    """A file: its first bytes, its length, and the length that the server tells."""

    head: bytes
    size: int
    told: str | None = None

    @classmethod
    def of(cls, path: Path) -> HollowFile:
        size = path.stat().st_size
        with path.open("rb") as stream:
            return cls(stream.read(16 * 2**20), size)

    def part(self, start: int, stop: int) -> bytes:
        assert stop - start <= _MOST
        return self.head[start:stop].ljust(max(0, stop - start), b"\0")


@dataclass
class RemoteFiles:
    """Serves files by name; keeps what was asked and how much was sent."""

    files: dict[str, HollowFile] = field(default_factory=dict)
    redirects: Mapping[str, str] = field(default_factory=dict)
    ranges: bool = True
    sent: int = 0
    asked: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.server = Server("127.0.0.1", 0, self._respond)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()
        assert self.server.errors == []

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def fail(self, kind: Kind, **values: object) -> None:
        self.server.faults.append(Fault(kind, **values))  # type: ignore[arg-type]  # the fields of Fault

    def _respond(self, request: Request) -> tuple[Response, str]:
        self.asked.append(request)
        name = request.path.strip("/")
        if name in self.redirects:
            return Response(302, b"", {"Location": self.redirects[name]}), "redirect"
        file = self.files.get(name)
        if file is None:
            return Response(404, b"no such file", {"Content-Type": "text/plain"}), ""
        found = _RANGE.fullmatch(request.headers.get("range", ""))
        if not self.ranges or not found:
            body = file.part(0, file.size)
            self.sent += len(body)
            return Response(200, body, {"Content-Type": "application/octet-stream"}), "whole"
        start, stop = int(found[1]), min(int(found[2]) + 1 if found[2] else file.size, file.size)
        body = file.part(start, stop)
        self.sent += len(body)
        told = file.told if file.told is not None else str(file.size)
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"bytes {start}-{stop - 1}/{told}"}
        return Response(206, body, headers), "range"
