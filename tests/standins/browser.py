"""A real browser for tests: headless Chromium through its driver's plain HTTP protocol (W3C WebDriver)."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess  # noqa: TID251 - a server that lives as long as the test; gpurig.common.process waits for an end
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpurig.common.waiting import wait_for

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def find_browser() -> tuple[str, str] | None:
    """The paths of Chromium and its driver, or None."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    """One window."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, address: str) -> None:
        """Go to `address`, afresh even where only the part after `#` differs."""
        self._post("url", {"url": "about:blank"})
        self._post("url", {"url": address})

    def resize(self, width: int, height: int = 900) -> None:
        """Make the page `width` CSS pixels wide."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def run(self, script: str, *arguments: object) -> Any:
        """What the body of a function answers in the page."""
        return self._post("execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector: str) -> None:
        """Click as a user does: it fails where something covers the element."""
        self._post(f"element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Type into a field."""
        self._post(f"element/{self._find(selector)}/value", {"text": text})

    def press(self, key: str) -> None:
        """Press one key, wherever the focus is."""
        keys = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._post("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": keys}]})

    def command(self, name: str, **parameters: object) -> Any:
        """One command of the browser's own protocol."""
        return self._post("goog/cdp/execute", {"cmd": name, "params": parameters})

    def console(self) -> list[str]:
        """What the page and the browser complained about since the last call."""
        entries = self._post("se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in {"SEVERE", "WARNING"}]

    def _find(self, selector: str) -> str:
        return str(self._post("element", {"using": "css selector", "value": selector})[_ELEMENT])

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return _request("POST", f"{self._session}/{path}", body)


@contextmanager
def started_browser(paths: tuple[str, str]) -> Iterator[Browser]:
    """A browser with an empty profile, gone afterwards."""
    program, driver = paths
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    root = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=profile
        )
        session = ""
        try:
            assert wait_for(lambda: _ready(root), timeout_s=30), "chromedriver does not answer"
            options = {"binary": program, "args": [*_FLAGS, f"--user-data-dir={Path(profile) / 'profile'}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            made = _request("POST", f"{root}/session", {"capabilities": {"alwaysMatch": wanted}})
            session = f"{root}/session/{made['sessionId']}"
            yield Browser(session)
        finally:
            if session:
                _request("DELETE", session, None)
            process.terminate()
            process.wait(timeout=30)


def _ready(root: str) -> bool:
    try:
        return bool(_request("GET", f"{root}/status", None)["ready"])
    except OSError:
        return False


def _request(method: str, address: str, body: dict[str, Any] | None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - always http to this machine
        address, data=data, method=method, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        value = json.load(error)["value"]
        raise AssertionError(f"{method} {address}: {value['error']}: {value['message'].splitlines()[0]}") from error
