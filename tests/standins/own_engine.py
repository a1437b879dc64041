"""A Docker Engine of a test's own, beside one that runs: the same dockerd, with another PATH and other settings."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess  # noqa: TID251 - a daemon that runs beside the test
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurig.common.process import run
from gpurig.common.waiting import wait_for

from standins.missing import missing

if TYPE_CHECKING:
    import docker

_REQUIRE = "GPURIG_REQUIRE_DOCKER"


def dockerd_of(address: str) -> Path:
    """The program that listens on a Unix socket; skips where it is no dockerd that this user may look at."""
    with socket.socket(socket.AF_UNIX) as knock:
        knock.connect(address.removeprefix("unix://"))
        pid = struct.unpack("3i", knock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    try:
        program = Path(f"/proc/{pid}/exe").readlink()
    except OSError as error:
        missing(f"the engine's program cannot be found ({error.strerror})", _REQUIRE)
    if program.name != "dockerd":
        missing(f"what listens on {address} is {program.name}, not dockerd", _REQUIRE)
    return program


@contextlib.contextmanager
def own_engine(
    dockerd: Path, *, path_first: Path, settings: Mapping[str, Any] | None = None
) -> Iterator[tuple[docker.DockerClient, str]]:
    """Start it, and end it with all that it had; its containers have no network but the host's, or none.

    Args:
        dockerd: the program.
        path_first: a folder that stands first in its PATH.
        settings: its daemon.json.

    Yields:
        A client, and the address.
    """
    import docker

    if os.geteuid() != 0 or not shutil.which("ip"):
        missing("a second engine needs root and iproute2", _REQUIRE)
    # Short, because a socket's path may have 108 characters; the kernel's limit for a link's name is 15.
    mark = uuid.uuid4().hex[:6]
    folder, link = Path(tempfile.mkdtemp(prefix="gpurig-dockerd-")), f"gpurig-{mark}"
    (folder / "daemon.json").write_text(json.dumps(dict(settings or {})))
    address = f"unix://{folder}/docker.sock"
    # `--bridge none` would delete another engine's docker0.
    assert run(["ip", "link", "add", link, "type", "bridge"], timeout_s=20).code == 0
    assert run(["ip", "address", "add", f"172.31.{int(mark[:2], 16) % 250}.1/24", "dev", link], timeout_s=20).code == 0
    command = [str(dockerd), "--config-file", str(folder / "daemon.json"), "--data-root", str(folder / "data")]
    command += ["--exec-root", str(folder / "exec"), "-p", str(folder / "pid"), "-H", address]
    command += ["--bridge", link, "--iptables=false", "--ip6tables=false"]
    with (folder / "log").open("w") as log:
        environment = {**os.environ, "PATH": f"{path_first}:{os.environ['PATH']}"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        client = wait_for(lambda: _connected(address), timeout_s=60)
        assert client, (folder / "log").read_text()[-2000:]
        with contextlib.closing(client):
            yield client, address
            for container in client.containers.list(all=True):
                with contextlib.suppress(docker.errors.APIError):
                    container.remove(force=True, v=True)
    finally:
        process.terminate()
        process.wait(60)
        run(["ip", "link", "delete", link], timeout_s=20)
        shutil.rmtree(folder, ignore_errors=True)


def _connected(address: str) -> docker.DockerClient | None:
    import docker

    if not Path(address.removeprefix("unix://")).exists():
        return None
    # A version that is given is not asked for here: a client whose making fails leaves its socket open.
    client = docker.DockerClient(base_url=address, timeout=600, version="1.41")
    try:
        client.ping()
    except (docker.errors.DockerException, OSError):
        client.close()
        return None
    return client


def copy_image(source: docker.DockerClient, target: docker.DockerClient, name: str) -> None:
    """Give an engine an image that another one has; nothing where it has one of that name."""
    from docker.errors import ImageNotFound

    try:
        target.images.get(name)
    except ImageNotFound:
        with tempfile.TemporaryFile() as file:
            for chunk in source.images.get(name).save(named=name):
                file.write(chunk)
            file.seek(0)
            target.images.load(file)
