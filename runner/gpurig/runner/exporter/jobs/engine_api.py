"""The few calls of the Docker Engine's API that the watcher makes, over its Unix socket, with the standard library.

docker-py would do, and takes more memory than the whole exporter. API: docs.docker.com/reference/api/engine, 1.41
(Docker Engine 20.10) and newer.
"""

from __future__ import annotations

import http.client
import json
import socket
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpurig.common.terminal import harmless
from gpurig.runner.exporter.devices.figures import SourceError

# The newest version whose answers are known here; an older engine gets its own.
_NEWEST = (1, 45)
_MOST_ANSWER_BYTES = 16 * 1024 * 1024
_MOST_EVENT_BYTES = 1024 * 1024
_TIMEOUT_S = 10.0

# Not there; or, of a log, about to be removed.
_GONE = {404, 409}
_STREAM_HEADER = 8


class EngineError(SourceError):
    """The engine does not answer, or refuses; one line, whatever it said."""

    def __init__(self, text: str) -> None:
        """Word it."""
        super().__init__(harmless(" ".join(text.split())))


class GoneError(EngineError):
    """There is no such container any more, or it is being removed."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(self.timeout)
            connected.connect(self._path)
        except BaseException:
            connected.close()
            raise
        self.sock = connected


class EngineApi:
    """One engine; every call has a connection of its own, and raises EngineError where it fails."""

    def __init__(self, socket_path: Path, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Use the socket at that path; it is not looked at yet."""
        self._path = str(socket_path)
        self._timeout_s = timeout_s
        self._version = ""

    def greet(self) -> str:
        """Agree on the API's version, again after each connection: the engine may be another one now.

        Returns:
            The version that is spoken, "1.41".
        """
        self._version = ""
        told = self._json("/version", {})
        if not isinstance(told, dict):
            raise EngineError("what listens on the engine's socket does not answer as a Docker Engine does")
        newest, oldest = _numbers(told.get("ApiVersion")), _numbers(told.get("MinAPIVersion"))
        spoken = max(min(_NEWEST, newest), oldest)
        self._version = f"{spoken[0]}.{spoken[1]}"
        return self._version

    def containers(self, label: str) -> list[dict[str, Any]]:
        """The containers that have a label, those that ended too."""
        answer = self._json("/containers/json", {"all": "1", "filters": json.dumps({"label": [label]})})
        return _objects(answer)

    def inspect(self, container_id: str) -> dict[str, Any]:
        """Everything about a container; GoneError where it was removed."""
        answer = self._json(f"/containers/{urllib.parse.quote(container_id, safe='')}/json", {})
        if not isinstance(answer, dict):
            raise EngineError("the engine describes a container by something else than an object")
        return answer

    def images(self) -> list[dict[str, Any]]:
        """The images that have a name."""
        return _objects(self._json("/images/json", {}))

    def root_dir(self) -> str:
        """The folder where the engine keeps its images and containers, on the host."""
        answer = self._json("/info", {})
        return str(answer.get("DockerRootDir", "")) if isinstance(answer, dict) else ""

    def log_tail(self, container_id: str, *, since_s: float, tty: bool, lines: int, most_bytes: int) -> bytes:
        """The end of what a container wrote, standard output and error together.

        Args:
            container_id: whose.
            since_s: Unix time from which on; a container that was started again keeps what it wrote before.
            tty: it has a terminal, so that the engine sends its output as it is.
            lines: at most so many lines.
            most_bytes: at most so many bytes, the last ones.
        """
        query = {"stdout": "1", "stderr": "1", "tail": str(lines), "since": f"{since_s:.9f}"}
        path = f"/containers/{urllib.parse.quote(container_id, safe='')}/logs"
        connection, response = self._open(path, query, self._timeout_s)
        try:
            kept = b""
            for piece in _pieces(response) if tty else _frames(response):
                kept = (kept + piece)[-most_bytes:]
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EngineError(f"the engine breaks off a log: {_reason(error)}") from error
        else:
            return kept
        finally:
            _close(connection, response)

    def events(self, *, since_ns: int, label: str, actions: tuple[str, ...]) -> EventStream:
        """What happens to containers that have a label, from `since_ns` (Unix time in ns) on; open already.

        The engine remembers its last 256 events for as long as it runs.
        """
        filters = {"type": ["container"], "label": [label], "event": list(actions)}
        query = {"filters": json.dumps(filters), "since": f"{since_ns // 10**9}.{since_ns % 10**9:09d}"}
        connection, response = self._open("/events", query, self._timeout_s)
        # From here on there may be nothing to hear for hours; `EventStream.close` ends a read that waits.
        if connection.sock is not None:
            connection.sock.settimeout(None)
        return EventStream(connection, response)

    def _json(self, path: str, query: Mapping[str, str]) -> Any:
        connection, response = self._open(path, query, self._timeout_s)
        try:
            body = response.read(_MOST_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"the engine breaks off its answer: {_reason(error)}") from error
        finally:
            _close(connection, response)
        if len(body) > _MOST_ANSWER_BYTES:
            raise EngineError(f"the engine's answer is longer than {_MOST_ANSWER_BYTES} bytes")
        try:
            return json.loads(body)
        except ValueError as error:
            raise EngineError("what listens on the engine's socket does not answer as a Docker Engine does") from error

    def _open(
        self, path: str, query: Mapping[str, str], timeout_s: float
    ) -> tuple[_UnixConnection, http.client.HTTPResponse]:
        prefix = f"/v{self._version}" if self._version else ""
        target = prefix + path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        connection = _UnixConnection(self._path, timeout_s)
        try:
            connection.request("GET", target)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise EngineError(_unanswered(self._path, error)) from error
        if response.status != http.client.OK:
            told = _told(response)
            _close(connection, response)
            kind = GoneError if response.status in _GONE else EngineError
            raise kind(f"the engine answers {response.status}: {told}")
        return connection, response


class EventStream:
    """Events as the engine tells them, until it ends the stream or `close` is called from any thread."""

    def __init__(self, connection: _UnixConnection, response: http.client.HTTPResponse) -> None:
        """Read the events of a response that has begun."""
        self._socket = connection.sock
        self._connection = connection
        self._response = response

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Events one by one; EngineError where the stream breaks."""
        while True:
            try:
                line = self._response.readline(_MOST_EVENT_BYTES)
            except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
                # ValueError and AttributeError: closed by another thread while it waited.
                raise EngineError(f"the engine breaks off its events: {_reason(error)}") from error
            if not line:
                return
            try:
                event = json.loads(line)
            except ValueError as error:
                raise EngineError("the engine tells an event that is no JSON") from error
            if isinstance(event, dict):
                yield event

    def wake(self) -> None:
        """End a read that waits, from another thread."""
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return

    def close(self) -> None:
        """Give the connection back."""
        _close(self._connection, self._response)


def _close(connection: _UnixConnection, response: http.client.HTTPResponse) -> None:
    response.close()
    connection.close()


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := response.read(65536):
        yield piece


def _frames(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What a container without a terminal wrote: frames of 8 bytes' header (stream, 3 zeros, length) and content."""
    while len(header := response.read(_STREAM_HEADER)) == _STREAM_HEADER:
        left = int.from_bytes(header[4:], "big")
        while left > 0 and (piece := response.read(min(left, 65536))):
            left -= len(piece)
            yield piece


def _objects(answer: object) -> list[dict[str, Any]]:
    if not isinstance(answer, list):
        raise EngineError("the engine answers a list by something else")
    return [one for one in answer if isinstance(one, dict)]


def _numbers(version: object) -> tuple[int, int]:
    major, _, minor = str(version or "").partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        # An engine that tells none is older than any that is supported; let it judge.
        return (1, 41)
    return int(major), int(minor)


def _told(response: http.client.HTTPResponse) -> str:
    """The engine's own words for a refusal: `{"message": "…"}`."""
    try:
        told = json.loads(response.read(4096))
    except (OSError, http.client.HTTPException, ValueError):
        return response.reason
    return str(told.get("message", "")) if isinstance(told, dict) else response.reason


def _unanswered(path: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"there is no socket {path}"
    if isinstance(error, PermissionError):
        return f"no permission to use the socket {path}"
    return f"the engine does not answer on {path}: {_reason(error)}"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
