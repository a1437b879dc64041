"""gitlab-runner's program, where systemd is to run it: there, new enough, and a systemd to run it."""

from __future__ import annotations

from dataclasses import dataclass

from gpurig.provisioning.distribution import Distribution
from gpurig.provisioning.doctor.finding import Finding
from gpurig.provisioning.runner_binary import OLDEST_RUNNER, PROGRAM, REPOSITORY, RunnerBinary
from gpurig.provisioning.versions import older

_NEEDED = f"{'.'.join(map(str, OLDEST_RUNNER))} or newer"


@dataclass(frozen=True)
class ProgramSeen:
    """The program and what shall run it.

    Attributes:
        binary: None where there is none on PATH.
        systemd: it runs this machine.
    """

    binary: RunnerBinary | None
    systemd: bool


def judge(seen: ProgramSeen, where: Distribution) -> tuple[Finding, ...]:
    """The finding on it."""
    if not seen.systemd:
        hint = "leave out --service systemd: the engine then keeps gitlab-runner running"
        return (Finding(PROGRAM, "failed", "systemd does not run this machine", needed="systemd", hint=hint),)
    fix = where.install("gitlab-runner")
    if seen.binary is None:
        message = f"{PROGRAM} is not on PATH"
        return (Finding(PROGRAM, "failed", message, needed=_NEEDED, commands=fix, hint=REPOSITORY),)
    path, version = seen.binary.path, seen.binary.version
    if not version:
        return (Finding(PROGRAM, "warning", f"{path} does not tell its version", needed=_NEEDED),)
    if older(version, OLDEST_RUNNER):
        message = f"{path} does not know every key of the config.toml that up writes"
        return (Finding(PROGRAM, "failed", message, found=version, needed=_NEEDED, commands=fix, hint=REPOSITORY),)
    return (Finding(PROGRAM, "ok", str(path), found=version, needed=_NEEDED),)
