"""A container as gpurig wants it: a frozen value that can be compared with what runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from gpurig.provisioning.wiring import Wiring

LABEL_INSTANCE = "gpurig.instance"
LABEL_ROLE = "gpurig.role"
LABEL_SPEC = "gpurig.spec"

NO_NEW_PRIVILEGES = ("no-new-privileges:true",)


@dataclass(frozen=True)
class Mount:
    """A folder or file of the host inside the container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Port:
    """A TCP port of the container, published on an address of the host."""

    container: int
    address: str
    host: int


@dataclass(frozen=True)
class ContainerSpec:
    """Everything that makes a container what it is.

    Attributes:
        name: the container's name, unique on the engine.
        role: "runner", "watcher", "exporter" or "selfcheck".
        instance: the gpurig instance it belongs to.
        command: arguments for the image's entrypoint; the image's own where empty.
        network: "bridge", "host" or "none".
        restart: keep it running, also after a reboot, until somebody stops it.
        stop_signal: what asks it to end; the image's own where empty.
        init: reap its zombies with the engine's init.
        labels: besides those that say who owns it.
        user: "UID:GID" that its program runs as; the image's own where empty.
        host_pids: it sees the processes of the whole machine.
        cap_add: capabilities that it keeps of those that `cap_drop` takes.
    """

    name: str
    role: str
    instance: str
    image: str
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    ports: tuple[Port, ...] = ()
    network: str = "bridge"
    restart: bool = False
    stop_signal: str = ""
    read_only: bool = False
    tmpfs: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    shm_size: int | None = None
    wiring: Wiring = field(default_factory=Wiring)
    labels: tuple[tuple[str, str], ...] = ()
    user: str = ""
    host_pids: bool = False
    cap_add: tuple[str, ...] = ()

    def digest(self, image_id: str) -> str:
        """What the `gpurig.spec` label holds: a container with another one is another container.

        Args:
            image_id: what the image's name meant on the engine, because a tag can move.
        """
        value = json.dumps([dataclasses.asdict(self), image_id], sort_keys=True)
        return hashlib.sha256(value.encode()).hexdigest()[:16]

    def sdk_arguments(self, image_id: str) -> dict[str, Any]:
        """Keyword arguments of docker-py's `containers.create`."""
        from docker.types import Mount as SdkMount  # noqa: PLC0415 - heavy

        arguments: dict[str, Any] = {
            "name": self.name,
            "detach": True,
            "network_mode": self.network,
            "labels": {
                **dict(self.labels),
                LABEL_INSTANCE: self.instance,
                LABEL_ROLE: self.role,
                LABEL_SPEC: self.digest(image_id),
            },
            "environment": dict(self.environment),
            "mounts": [
                SdkMount(target=mount.target, source=mount.source, type="bind", read_only=mount.read_only)
                for mount in self.mounts
            ],
            "read_only": self.read_only,
            "tmpfs": dict.fromkeys(self.tmpfs, ""),
            "cap_drop": list(self.cap_drop),
            "security_opt": list(self.security_opt),
            **self.wiring.sdk_arguments(),
        }
        if self.command:
            arguments["command"] = list(self.command)
        if self.ports:
            arguments["ports"] = {f"{port.container}/tcp": (port.address, port.host) for port in self.ports}
        if self.restart:
            arguments["restart_policy"] = {"Name": "unless-stopped"}
        if self.stop_signal:
            arguments["stop_signal"] = self.stop_signal
        if self.user:
            arguments["user"] = self.user
        if self.host_pids:
            arguments["pid_mode"] = "host"
        if self.cap_add:
            arguments["cap_add"] = list(self.cap_add)
        if self.shm_size is not None:
            arguments["shm_size"] = self.shm_size
        return arguments
