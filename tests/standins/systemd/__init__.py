"""A machine that systemd runs: a container without privileges but CAP_SYS_ADMIN, on the tests' engine."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpurig.common.process import Finished
from gpurig.common.waiting import wait_for

from standins import images
from standins.missing import missing

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parents[2]
_PORTIONS = ("common", "evaljobs", "images", "provisioning", "runner")
_REQUIRE = "GPURIG_REQUIRE_SYSTEMD"
# systemd calls itself degraded where any unit failed: it still does what it is told.
_UP = ("running", "degraded")


@dataclass
class Machine:
    """The machine; programs are run in it as root."""

    container: Container

    def run(self, *argv: str) -> Finished:
        """Run a program to its end."""
        environment = {
            "PYTHONPATH": ":".join(str(_REPOSITORY / one) for one in _PORTIONS),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "80",
        }
        code, output = self.container.exec_run(list(argv), environment=environment, demux=True)
        parts: tuple[bytes | None, bytes | None] = output  # type: ignore[assignment]  # types-docker knows no demux
        out, err = ((part or b"").decode(errors="replace") for part in parts)
        return Finished(argv, int(code or 0), out, err)

    def gpurig(self, *words: str) -> Finished:
        """Run gpurig as its user does."""
        return self.run("python3", "-m", "gpurig.runner", *words)


def image(engine: docker.DockerClient, runner_image: str) -> str:
    """The machine's image, around the program of a runner's image."""
    files = {name: (_HERE / name).read_bytes() for name in ("Dockerfile", "boot")}
    files["box.lock"] = (_REPOSITORY / "requirements" / "box.lock").read_bytes()
    return images.image_of(engine, "gpurig-standin-systemd", runner_image, files)


@contextlib.contextmanager
def machine(engine: docker.DockerClient, runner_image: str, folder: Path, socket: str) -> Iterator[Machine]:
    """Boot it; skips where this machine's kernel or engine does not let a container do so.

    Args:
        engine: what runs it.
        runner_image: has /usr/bin/gitlab-runner.
        folder: of this machine, there under the same path, because the engine takes paths for this machine's.
        socket: the engine's.
    """
    from docker.errors import APIError

    name = f"gpurig-systemd-{secrets.token_hex(4)}"
    # The whole repository: images are planned from files beside the code.
    read_only = [str(_REPOSITORY), "/etc/machine-id"]
    volumes = {path: {"bind": path, "mode": "ro"} for path in read_only if Path(path).exists()}
    volumes |= {str(folder): {"bind": str(folder)}, socket: {"bind": "/var/run/docker.sock"}}
    try:
        container = engine.containers.run(
            image(engine, runner_image),
            [name],
            name=name,
            hostname=os.uname().nodename,
            detach=True,
            cap_add=["SYS_ADMIN"],
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            cgroupns="host",
            tmpfs={"/run": "exec"},
            volumes=volumes,
        )
    except APIError as error:
        missing(f"the engine makes no container with CAP_SYS_ADMIN ({error.explanation})", _REQUIRE)
    try:
        booted = Machine(container)
        if not wait_for(lambda: _up(booted), timeout_s=60):
            said = bytes(container.logs(tail=5)).decode(errors="replace").strip()
            missing(f"systemd does not boot in a container ({said})", _REQUIRE)
        yield booted
    finally:
        container.remove(force=True, v=True)
        _remove_groups(name)


def _up(booted: Machine) -> bool:
    booted.container.reload()
    if booted.container.status != "running":
        return False
    return booted.run("systemctl", "is-system-running").stdout.strip() in _UP


def _remove_groups(name: str) -> None:
    """The control groups that systemd made; the kernel keeps those that are not empty."""
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        folder = root / name
        if folder.is_dir():
            for group in sorted((one for one in folder.rglob("*") if one.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    group.rmdir()
            with contextlib.suppress(OSError):
                folder.rmdir()
