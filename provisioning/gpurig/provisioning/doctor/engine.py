"""The container engine: there, ours to use, new enough."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpurig.common.errors import ApplianceError
from gpurig.provisioning.distribution import Command, Distribution
from gpurig.provisioning.doctor.finding import Finding
from gpurig.provisioning.doctor.user import user_name
from gpurig.provisioning.engine import (
    OLDEST_VERSION,
    OutdatedError,
    answer_of,
    connect,
    engine_facts,
    list_of,
    translated,
)
from gpurig.provisioning.engine_facts import DEFAULT_ADDRESS, EngineFacts

if TYPE_CHECKING:
    import docker

NEEDED = ".".join(str(part) for part in OLDEST_VERSION)

_REASONS = {FileNotFoundError: "absent", NotADirectoryError: "absent", PermissionError: "permission"}


@dataclass(frozen=True)
class EngineSeen:
    """The engine as it could be asked.

    Attributes:
        facts: what it can do; None where it could not be asked.
        data_root: where it keeps images.
        cdi_folders: where it looks for CDI specs; empty where CDI is off, or it does not say.
        problem: why it could not be asked.
        hint: what the problem's own hint says.
        version: of an engine that is too old to be asked more.
        reason: what kind of problem that is.
        installed: its program is on this machine, whether or not it runs.
        user: who asked.
    """

    facts: EngineFacts | None = None
    data_root: Path | None = None
    cdi_folders: tuple[Path, ...] = ()
    problem: str = ""
    hint: str = ""
    version: str = ""
    reason: str = ""
    installed: bool = False
    user: str = ""


def look(address: str) -> tuple[EngineSeen, docker.DockerClient | None]:
    """Ask the engine; a client for further questions where it answers.

    Raises:
        InputError: the address is not a socket's on this machine.
    """
    installed = shutil.which("dockerd") is not None
    try:
        client = connect(address or None)
    except OutdatedError as error:
        return EngineSeen(
            problem=error.message, hint=error.hint, version=error.version, reason="outdated", installed=True
        ), None
    except ApplianceError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        reason = _REASONS.get(type(error.__cause__), "silent")
        return EngineSeen(
            problem=error.message, hint=error.hint, reason=reason, installed=installed, user=user_name()
        ), None
    with translated("asking the engine where it keeps things"):
        info = answer_of(client.info())
    root = str(info.get("DockerRootDir") or "")
    return EngineSeen(
        facts=engine_facts(client, address or None),
        data_root=Path(root) if root else None,
        cdi_folders=tuple(Path(str(folder)) for folder in list_of(info.get("CDISpecDirs"))),
        installed=True,
    ), client


def judge(seen: EngineSeen, where: Distribution, *, other: str = "") -> tuple[Finding, ...]:
    """The engine's finding.

    Args:
        seen: what became of asking it.
        where: the distribution.
        other: the address of an engine that is not the distribution's own, so that its commands would not help.
    """
    needed = f"{NEEDED} or newer"
    if seen.facts is not None:
        return (Finding("engine", "ok", "the Docker Engine answers", found=seen.facts.version, needed=needed),)
    commands: tuple[Command, ...] = ()
    hint = seen.hint
    if seen.reason == "permission":
        commands = (Command(("usermod", "-aG", "docker", seen.user), by_hand=True),)
        hint = "then log in again, or run gpurig with sudo; members of that group can become root"
    elif other not in {"", DEFAULT_ADDRESS}:
        hint = f"start the engine of {other}, or leave out --docker-host (DOCKER_HOST) for this machine's own"
    elif seen.reason in {"absent", "silent"} and seen.installed:
        commands = where.start("docker")
        hint = "its log: journalctl -u docker; or name another socket with --docker-host"
    elif seen.reason == "absent":
        install = where.install("engine")
        commands = (*install, *where.start("docker")) if install else ()
        hint = "or Docker's own packages: docs.docker.com/engine/install" if commands else seen.hint
    return (Finding("engine", "failed", seen.problem, found=seen.version, needed=needed, commands=commands, hint=hint),)
