"""The client of the engine's API: versions, streams, and everything that a socket may answer instead."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gpurig.common.waiting import wait_for
from gpurig.runner.exporter.jobs.engine_api import EngineApi, EngineError, GoneError

Answer = Callable[[str], bytes]


class Server:
    """Answers each request by its target; what it sends is sent as it is."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.asked: list[str] = []
        self.hold = threading.Event()
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client = self._socket.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client:
            request = b""
            while b"\r\n\r\n" not in request:
                request += client.recv(4096)
            target = request.split(b" ")[1].decode()
            self.asked.append(target)
            with contextlib.suppress(OSError):
                client.sendall(self._answer(target))
            if "/events" in target:
                self.hold.wait(2)

    def close(self) -> None:
        self.hold.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n".encode() + body


def _json(value: object, status: str = "200 OK") -> bytes:
    return _http(json.dumps(value).encode(), status)


def _chunked(*chunks: bytes, end: bool = True) -> bytes:
    body = b"".join(f"{len(one):x}\r\n".encode() + one + b"\r\n" for one in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if end else b"")


@contextmanager
def _engine(tmp_path: Path, answer: Answer) -> Iterator[tuple[EngineApi, Server]]:
    path = tmp_path / "engine.sock"
    server = Server(path, answer)
    try:
        yield EngineApi(path, timeout_s=2), server
    finally:
        server.close()


@pytest.mark.parametrize(
    ("newest", "oldest", "spoken"),
    [
        ("1.41", "1.12", "1.41"),
        ("1.45", "1.24", "1.45"),
        ("1.52", "1.44", "1.45"),
        ("1.60", "1.50", "1.50"),
        ("", "", "1.41"),
        ("x.y", None, "1.41"),
    ],
)
def test_the_version_is_one_that_both_know(newest: str, oldest: str | None, spoken: str, tmp_path: Path) -> None:
    def answer(target: str) -> bytes:
        return _json({"ApiVersion": newest, "MinAPIVersion": oldest} if target == "/version" else [])

    with _engine(tmp_path, answer) as (api, server):
        assert api.greet() == spoken
        assert api.containers("a.label") == []
        assert server.asked[1].startswith(f"/v{spoken}/containers/json?all=1&")
        assert "a.label" in server.asked[1]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        _http(b"<html>"),
        _http(b"\xff\xfe"),
        _json([1]),
        _json("x"),
        _json({"message": "no"}, "500 Internal Server Error"),
        _http(b"x" * 10, "400 Bad Request"),
    ],
)
def test_what_is_no_engines_answer_is_an_error_of_one_line(answer: bytes, tmp_path: Path) -> None:
    with _engine(tmp_path, lambda _: answer) as (api, _), pytest.raises(EngineError) as caught:
        api.greet()
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_answer_without_an_end_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(EngineError, match=r"does not answer on .*timed out"):
            EngineApi(path, timeout_s=0.2).greet()


def test_an_answer_that_is_too_long_is_refused(tmp_path: Path) -> None:
    long = _http(b"[" + b" " * (17 * 1024 * 1024) + b"]")
    with _engine(tmp_path, lambda _: long) as (api, _), pytest.raises(EngineError, match="longer than"):
        api.images()


def test_no_socket_and_no_permission_are_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=f"there is no socket {tmp_path}/none"):
        EngineApi(tmp_path / "none").greet()
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="does not answer on"):
        EngineApi(tmp_path / "file").greet()


@pytest.mark.parametrize(("status", "kind"), [("404 Not Found", GoneError), ("409 Conflict", GoneError)])
def test_a_container_that_is_gone_is_told_apart(status: str, kind: type[EngineError], tmp_path: Path) -> None:
    answer = _json({"message": "No such container: x"}, status)
    with _engine(tmp_path, lambda _: answer) as (api, server):
        with pytest.raises(kind, match="No such container"):
            api.inspect("../../images/json")
        assert server.asked == ["/containers/..%2F..%2Fimages%2Fjson/json"]


def _frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


def test_the_end_of_a_log_is_both_streams_without_their_headers(tmp_path: Path) -> None:
    body = _frame(1, b"one\n") + _frame(2, b"two\n") + _frame(1, b"x" * 100_000) + _frame(2, b"end")
    with _engine(tmp_path, lambda _: _chunked(body[:5], body[5:70_000], body[70_000:])) as (api, server):
        tail = api.log_tail("a", since_s=12.5, tty=False, lines=9, most_bytes=1_000_000)
        assert tail == b"one\ntwo\n" + b"x" * 100_000 + b"end"
        assert api.log_tail("a", since_s=0, tty=False, lines=9, most_bytes=5) == b"xxend"
    assert "tail=9" in server.asked[0]
    assert "since=12.500000000" in server.asked[0]


@pytest.mark.parametrize("body", [b"", b"\x01", _frame(1, b"abc")[:9], struct.pack(">BxxxL", 1, 2**32 - 1) + b"abc"])
def test_a_log_that_is_cut_off_is_what_there_is(body: bytes, tmp_path: Path) -> None:
    with _engine(tmp_path, lambda _: _chunked(*([body] if body else []))) as (api, _):
        assert len(api.log_tail("a", since_s=0, tty=False, lines=9, most_bytes=100)) <= 3


def test_events_come_one_by_one_however_they_are_cut(tmp_path: Path) -> None:
    text = b'{"Action":"start"}\n{"Action":"die"}\n[1]\n{"Action":"oom"}\n'
    with _engine(tmp_path, lambda _: _chunked(*(text[at : at + 7] for at in range(0, len(text), 7)))) as (api, server):
        stream = api.events(since_ns=1_700_000_000_000_000_001, label="a", actions=("start",))
        assert [event["Action"] for event in stream] == ["start", "die", "oom"]
        stream.close()
    assert "since=1700000000.000000001" in server.asked[0]


@pytest.mark.parametrize("rest", [b"2\r\n{\n\r\n", b"zz\r\n", b"-5\r\n"])
def test_a_stream_that_is_damaged_ends_after_what_was_whole(rest: bytes, tmp_path: Path) -> None:
    with _engine(tmp_path, lambda _: _chunked(b'{"Action":"die"}\n', end=False) + rest) as (api, _):
        stream = api.events(since_ns=0, label="a", actions=("die",))
        seen = []
        with contextlib.suppress(EngineError):
            for event in stream:
                seen.append(event["Action"])  # noqa: PERF401 - what came before the error counts
        stream.close()
        assert seen == ["die"]


def test_a_stream_that_waits_is_ended_from_another_thread(tmp_path: Path) -> None:
    ended: list[str] = []

    with _engine(tmp_path, lambda _: _chunked(b'{"Action":"die"}\n', end=False)) as (api, _):
        stream = api.events(since_ns=0, label="a", actions=("die",))
        begun = threading.Event()

        def follow() -> None:
            try:
                for _event in stream:
                    begun.set()
                ended.append("end")
            except EngineError as error:
                ended.append(str(error))

        thread = threading.Thread(target=follow)
        thread.start()
        assert begun.wait(5)
        stream.wake()
        assert wait_for(lambda: ended, timeout_s=5)
        thread.join(5)
        stream.close()
