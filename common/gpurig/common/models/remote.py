"""What a transfer needs of a source, whichever it is."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpurig.common.errors import RemoteError, TransientError
from gpurig.common.files import read_problem

# What one read asks for: at most that much is lost where a connection breaks.
CHUNK = 2**16
_CONTENT_RANGE = re.compile(r"bytes (?:(?P<start>\d{1,18})-\d{1,18}|\*)/(?P<total>\d{1,18}|\*)")


@dataclass(frozen=True)
class RemoteFacts:
    """What a source says of a file before it sends it.

    Attributes:
        size_bytes: of the whole file; None where it does not say.
        sha256: of the whole file; None where it does not say.
        revision: what this exact content is called there (a commit); "" where there are no revisions.
        etag: changes when the content does; "" where it does not say.
    """

    size_bytes: int | None = None
    sha256: str | None = None
    revision: str = ""
    etag: str = ""


@dataclass(frozen=True)
class Body:
    """The bytes that a source sends.

    Attributes:
        start: where in the file they begin: what was asked for, or 0 where the source sends all of it.
        chunks: the bytes; raises TransientError where the connection breaks.
        total: bytes of the whole file, as the answer says; None where it does not.
    """

    start: int
    chunks: Iterator[bytes]
    total: int | None = None


class RemoteFile(Protocol):
    """One file at a source. Both calls raise TransientError for what may pass, another ApplianceError otherwise."""

    @property
    def label(self) -> str:
        """For messages, without anything secret."""

    def look(self) -> RemoteFacts:
        """What the source says of it."""

    def open(self, start: int, facts: RemoteFacts, *, stop: int | None = None) -> AbstractContextManager[Body]:
        """The bytes from `start` on, of the content that `facts` describes.

        Before byte `stop`, where it is given and the source can: it may send more, up to the end of the file.
        """


def range_header(start: int, stop: int | None) -> dict[str, str]:
    """The request header for the bytes from `start` on, before `stop` (RFC 9110, 14.2); none for the whole file."""
    if not start and stop is None:
        return {}
    return {"Range": f"bytes={start}-" + (str(stop - 1) if stop is not None else "")}


def answered_span(status: int, headers: Mapping[str, str], asked: int) -> tuple[int, int | None]:
    """Where the body of an HTTP answer begins in the file, and how long the whole file is (None: it does not say).

    Args:
        status: 200, 206 or 416 (RFC 9110, 15.3.7 and 15.5.17).
        headers: the answer's, whose names are found in any spelling.
        asked: the first byte that the request asked for.

    Raises:
        TransientError: another part came than was asked for; the next attempt may get the right one.
    """
    span = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    total = int(span["total"]) if span and span["total"] != "*" else None
    if status == 206 and span and span["start"]:
        if int(span["start"]) != asked:
            raise TransientError(f"the answer begins at byte {span['start']}, byte {asked} was asked for")
        return asked, total
    if status == 416 and total == asked:
        # Nothing is missing: the length was not known before.
        return asked, total
    if status != 200:
        raise TransientError(f"status {status} does not answer a request for the bytes from {asked} on")
    length = headers.get("Content-Length", "")
    plain = headers.get("Content-Encoding", "identity").lower() == "identity"
    return 0, int(length) if plain and length.isascii() and length.isdigit() else None


def refuse_page(label: str, headers: Mapping[str, str]) -> None:
    """Refuse a web page in a file's place: a login page, a captive portal.

    Raises:
        RemoteError: it is one.
    """
    if "text/html" in headers.get("Content-Type", "").lower():
        raise RemoteError(
            f"{label}: a web page came instead of the file",
            hint="check the address, and that no proxy or login page answers in its place",
        )


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine as a source: what is copied in by hand where there is no network."""

    path: Path

    @property
    def label(self) -> str:
        """Its path."""
        return str(self.path)

    def look(self) -> RemoteFacts:
        """Its size."""
        try:
            seen = self.path.stat()
        except OSError as error:
            raise read_problem(self.path, error) from error
        return RemoteFacts(size_bytes=seen.st_size, etag=f"{seen.st_size}-{seen.st_mtime_ns}")

    @contextlib.contextmanager
    def open(
        self,
        start: int,
        facts: RemoteFacts,  # noqa: ARG002 - RemoteFile's signature
        *,
        stop: int | None = None,  # noqa: ARG002 - likewise: a file is read as far as anybody wants
    ) -> Iterator[Body]:
        """Its bytes from `start` on."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(start)
                yield Body(start, iter(lambda: _read(self.path, stream), b""))
        except OSError as error:
            raise read_problem(self.path, error) from error


def _read(path: Path, stream: object) -> bytes:
    try:
        data: bytes = stream.read(CHUNK)  # type: ignore[attr-defined]  # a binary stream
    except OSError as error:
        raise read_problem(path, error) from error
    return data


def free_bytes(folder: Path) -> int:
    """Bytes that are free where `folder` is."""
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise read_problem(folder, error) from error
