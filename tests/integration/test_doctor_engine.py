"""`gpurig doctor` and engines that answer oddly: over a real socket, each is one finding and never a traceback."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from gpurig.runner.__main__ import cli

VERSION: dict[str, Any] = {"Version": "26.1.5", "ApiVersion": "1.45", "MinAPIVersion": "1.24", "Components": []}
INFO: dict[str, Any] = {"DockerRootDir": "/", "CgroupDriver": "systemd", "CDISpecDirs": ["/etc/cdi"], "Runtimes": {}}
NEEDS_ENGINE = ("image space", "runner image")


class _Server(socketserver.ThreadingUnixStreamServer):
    """An engine whose answers a test decides, by the last part of the path."""

    answers: Mapping[str, Any]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def address_string(self) -> str:
        """A Unix socket's client has no address."""
        return ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        name = next((one for one in self.server.answers if path.endswith(one)), "")
        answer = self.server.answers.get(name, (404, b'{"message": "no such thing"}'))
        if answer is None:
            return
        status, body = answer if isinstance(answer, tuple) else (200, json.dumps(answer).encode())
        if status == 0:
            self.wfile.write(body)
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def odd_engine(folder: Path, answers: Mapping[str, Any]) -> Iterator[str]:
    """The address of an engine with these answers."""
    path = folder / "e.sock"
    with _Server(str(path), _Handler) as server:
        server.answers = answers
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()


def doctor(address: str, root: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    arguments = ["doctor", "--json", "--cpu", "--root", str(root), "--docker-host", address, "--metrics-listen", "off"]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert result.exception is None, repr(result.exception)
    assert isinstance(result.return_value, int)
    return result.return_value, {one["name"]: one for one in json.loads(result.stdout)["checks"]}


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"/version": (0, b"\x16\x03\x01 this is not HTTP\r\n\r\n")}, "engine"),
        ({"/version": None}, "engine"),
        ({"/version": (500, b'{"message": "starting"}')}, "starting"),
        ({"/version": (200, b"<html>")}, "engine"),
        ({"/version": (200, b"{")}, "engine"),
        ({"/version": {**VERSION, "Version": "19.03.15"}}, "19.03.15 is too old"),
        ({"/version": {**VERSION, "Components": [{"Name": "Podman Engine"}]}}, "Podman"),
        ({"/version": VERSION, "/info": (500, b'{"message": "the daemon is shutting down"}')}, "shutting down"),
        ({"/version": VERSION, "/info": None}, "engine"),
        ({"/version": VERSION, "/info": (200, b"<html>")}, "engine"),
        ({"/version": [1]}, "engine"),
        ({"/version": VERSION, "/info": [1]}, "engine"),
        ({"/version": {**VERSION, "Components": 3}}, "engine"),
    ],
)
def test_an_engine_that_answers_oddly_is_one_finding(answers: Mapping[str, Any], words: str, tmp_path: Path) -> None:
    with odd_engine(tmp_path, answers) as address:
        code, found = doctor(address, tmp_path)
    assert code == 4
    assert found["engine"]["status"] == "failed"
    assert words in found["engine"]["message"]
    assert {found[name]["status"] for name in NEEDS_ENGINE} == {"skipped"}


def test_an_old_engine_is_told_with_both_versions(tmp_path: Path) -> None:
    with odd_engine(tmp_path, {"/version": {**VERSION, "Version": "19.03.15"}}) as address:
        _, found = doctor(address, tmp_path)
    assert (found["engine"]["found"], found["engine"]["needed"]) == ("19.03.15", "20.10 or newer")


@pytest.mark.parametrize("info", [{}, {"CDISpecDirs": 3, "SecurityOptions": "none", "Runtimes": None}])
def test_an_engine_that_says_little_is_taken_for_what_it_says(info: dict[str, Any], tmp_path: Path) -> None:
    with odd_engine(tmp_path, {"/version": VERSION, "/info": info}) as address:
        _, found = doctor(address, tmp_path)
    assert found["engine"]["status"] == "ok"
    assert found["image space"]["status"] == "skipped"


def test_an_image_that_the_engine_and_its_registry_do_not_have(tmp_path: Path) -> None:
    with odd_engine(tmp_path, {"/version": VERSION, "/info": INFO}) as address:
        code, found = doctor(address, tmp_path)
    assert code == 5
    assert found["engine"]["found"] == "26.1.5"
    assert found["runner image"]["status"] == "failed"
    assert found["image space"]["status"] in {"ok", "failed"}


def test_an_engine_on_another_machine_is_refused_as_a_finding(tmp_path: Path) -> None:
    code, found = doctor("tcp://10.0.0.1:2375", tmp_path)
    assert code == 4
    assert "must be on this machine" in found["engine"]["message"]
