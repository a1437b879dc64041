"""A real Prometheus, and its promtool, for the tests."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess  # noqa: TID251 - a server that runs beside the test
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpurig.common.waiting import wait_for

from standins.missing import missing


def tool(name: str) -> str:
    """The path of `prometheus` or `promtool`; skips where it is not installed."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed (Debian package prometheus)", "GPURIG_REQUIRE_PROMTOOL")
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Prometheus:
    """A server that runs.

    Attributes:
        url: where its API is.
        log: its standard error.
    """

    url: str
    log: Path

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query.

        Raises:
            ValueError: Prometheus refuses the expression, or cannot evaluate it.
        """
        result: list[dict[str, Any]] = self.get("/api/v1/query", query=expression)["result"]
        return result

    def get(self, path: str, **parameters: str) -> dict[str, Any]:
        """The data of an answer of the API; its errors as ValueError."""
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - our own server
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(f"{parameters}: {error.read().decode()}") from error

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:  # noqa: S310 - our own server
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False


@contextmanager
def running_prometheus(config: Path, *, storage: Path, port: int | None = None) -> Iterator[Prometheus]:
    """Start one on a free port, and wait until it answers.

    Args:
        config: its configuration; paths in it start at its folder.
        storage: a folder for its data and its log, made here.
        port: a port that `free_port` gave, where the configuration holds it; another free one where None.
    """
    program = tool("prometheus")
    storage.mkdir()
    number = port or free_port()
    one = Prometheus(f"http://127.0.0.1:{number}", storage / "log")
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={storage / 'data'}"]
    with one.log.open("w", encoding="utf-8") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{number}"], stdout=log, stderr=log)
        try:
            answered = wait_for(lambda: one.ready() or process.poll() is not None, timeout_s=60)
            assert answered, one.log.read_text()
            assert process.poll() is None, one.log.read_text()
            yield one
        finally:
            process.terminate()
            process.wait(30)


def labels(series: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a series that a query returned, without its name."""
    return {key: value for key, value in series["metric"].items() if key != "__name__"}
