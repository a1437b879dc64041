"""`gpurig metrics serve` as a process beside the test, plain or with TLS and a user."""

from __future__ import annotations

import shutil
import signal
import subprocess  # noqa: TID251 - a server that runs beside the test, and is signalled
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import bcrypt
from gpurig.common.waiting import wait_for

from standins.gitlab import certificates
from standins.missing import missing
from standins.prometheus import free_port

USER, PASSWORD = "prometheus", "open sesame: ü"


def write_web_config(folder: Path, extra: str = "") -> Path:
    """web.yml with a user and TLS by server.crt, which the authority in ca.pem signed; `extra` are keys of TLS."""
    if shutil.which("openssl") is None:
        missing("no openssl to make certificates with", "GPURIG_REQUIRE_PROMTOOL")
    certificates.make(folder, "127.0.0.1")
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    path = folder / "web.yml"
    path.write_text(
        f"tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{extra}"
        f"basic_auth_users:\n  {USER}: {hashed}\n"
    )
    return path


@contextmanager
def serving_metrics(
    log: Path, *arguments: str, address: str = "127.0.0.1", env: Mapping[str, str] | None = None
) -> Iterator[int]:
    """The exporter on a free port, which it yields; it must end cleanly.

    Args:
        log: a file for its standard error.
        arguments: options of `gpurig metrics serve`.
        address: where it listens.
        env: its whole environment; the test's where None.
    """
    port = free_port()
    command = [sys.executable, "-m", "gpurig.runner", "metrics", "serve", "--listen", f"{address}:{port}", *arguments]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stderr=out, env=None if env is None else dict(env))
    try:
        assert wait_for(lambda: "serving" in log.read_text() or process.poll() is not None, timeout_s=30)
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
