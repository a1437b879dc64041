"""A container registry of a test's own: Debian's docker-registry (CNCF Distribution), with users or without."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import subprocess  # noqa: TID251 - a server that runs beside the test
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
from gpurig.common.waiting import wait_for

from standins.missing import missing

USER = "robot"


@dataclass(frozen=True)
class Registry:
    """A registry that answers.

    Attributes:
        host: as in an image's name; on 127.0.0.1, which every engine takes without TLS.
        password: of the user "robot", who may do everything.
        storage: its files.
        log: what it was asked, a line each.
    """

    host: str
    password: str
    storage: Path
    log: Path

    def manifest(self, repository: str, tag: str) -> dict[str, Any]:
        """What the registry says an image is made of."""
        request = urllib.request.Request(f"http://{self.host}/v2/{repository}/manifests/{tag}")
        kinds = ("docker.distribution.manifest.v2", "oci.image.manifest.v1")
        request.add_header("Accept", ", ".join(f"application/vnd.{kind}+json" for kind in kinds))
        manager = urllib.request.HTTPPasswordMgrWithPriorAuth()
        manager.add_password(None, f"http://{self.host}/", USER, self.password, is_authenticated=True)
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
        with opener.open(request, timeout=10) as answer:
            document: dict[str, Any] = json.loads(answer.read())
        return document

    def blobs(self) -> set[str]:
        """The digests of all that it holds: layers, configurations, manifests."""
        folder = self.storage / "docker/registry/v2/blobs/sha256"
        return {f"sha256:{path.name}" for path in folder.glob("*/*")}


@contextlib.contextmanager
def registry(
    folder: Path, *, certificate: tuple[Path, Path] | None = None, address: str = "127.0.0.1"
) -> Iterator[Registry]:
    """Start one below `folder`, and end it.

    Args:
        certificate: files of a certificate and its key; plain HTTP where None.
        address: where it listens.
    """
    program = shutil.which("docker-registry")
    if program is None:
        missing("there is no docker-registry (Debian's package of that name)", "GPURIG_REQUIRE_REGISTRY")
    password = f"planted-{secrets.token_hex(8)}"
    folder.mkdir(parents=True, exist_ok=True)
    # The least cost: this is no place to be slow.
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    (folder / "htpasswd").write_text(f"{USER}:{hashed}\n")
    with socket.socket() as free:
        free.bind((address, 0))
        host = f"{address}:{free.getsockname()[1]}"
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": host, "secret": secrets.token_hex(8)},
        "auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
    }
    if certificate:
        config["http"]["tls"] = {"certificate": str(certificate[0]), "key": str(certificate[1])}
    # JSON is YAML.
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        assert wait_for(lambda: _answers(host), timeout_s=20), (folder / "log").read_text()[-2000:]
        yield Registry(host, password, folder / "storage", folder / "log")
    finally:
        process.terminate()
        process.wait(20)


def _answers(host: str) -> bool:
    address, _, port = host.rpartition(":")
    with socket.socket() as knock:
        return knock.connect_ex((address, int(port))) == 0
