"""NVIDIA's container toolkit: there, and new enough."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpurig.common.process import Finished, run
from gpurig.provisioning.distribution import Distribution
from gpurig.provisioning.doctor.finding import Finding, Status
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.versions import older

# The first that generates CDI specs (NVIDIA, "Support for Container Device Interface").
_OLDEST = (1, 12)
# Up to 1.17.7 a job's image can get root on the host (CVE-2025-23266).
_SAFE = (1, 17, 8)
_TIMEOUT_S = 20.0
_REPOSITORY = (
    "where the package manager does not know it, add NVIDIA's repository first: search for "
    '"Installing the NVIDIA Container Toolkit" at docs.nvidia.com'
)


@dataclass(frozen=True)
class ToolkitSeen:
    """`nvidia-ctk` on this machine.

    Attributes:
        installed: the program is there.
        version: "1.17.8"; "" where it does not say.
    """

    installed: bool
    version: str = ""


def look(execute: Callable[[Sequence[str]], Finished] | None = None) -> ToolkitSeen:
    """Ask the program for its version.

    Raises:
        PrerequisiteError: it cannot be run, or does not answer.
    """
    if shutil.which("nvidia-ctk") is None:
        return ToolkitSeen(installed=False)
    argv = ("nvidia-ctk", "--version")
    done = execute(argv) if execute else run(argv, timeout_s=_TIMEOUT_S)
    return ToolkitSeen(installed=True, version=parse_version(done.stdout))


def parse_version(text: str) -> str:
    """The number in "NVIDIA Container Toolkit CLI version 1.17.8"; "" where there is none."""
    found = re.search(r"version\s+v?(\d+\.\d+(?:\.\d+)?)", text)
    return found[1] if found else ""


def judge(seen: ToolkitSeen, *, wanted: bool, engine: EngineFacts | None, where: Distribution) -> tuple[Finding, ...]:
    """The toolkit's finding.

    Args:
        seen: what is installed.
        wanted: there are NVIDIA GPUs for jobs.
        engine: what the engine can do already; None where it could not be asked.
        where: the distribution.
    """
    if not wanted:
        return (Finding("toolkit", "skipped", "no NVIDIA GPU"),)
    oldest, safe = (".".join(map(str, version)) for version in (_OLDEST, _SAFE))
    fix = where.install("toolkit")
    if fix and not seen.installed and engine is not None and not engine.cdi:
        # An engine looks for NVIDIA's hook once, when it starts (moby, daemon/nvidia_linux.go).
        fix = (*fix, *where.restart("docker"))
    if not seen.installed:
        # A CDI spec that somebody brought along is enough to run.
        reached = engine is not None and any(name.startswith("nvidia.com/gpu=") for name in engine.cdi_devices)
        message = "NVIDIA's container toolkit (nvidia-ctk) is not installed"
        status: Status = "warning" if reached else "failed"
        return (Finding("toolkit", status, message, needed=f"{safe} or newer", commands=fix, hint=_REPOSITORY),)
    if not seen.version:
        return (Finding("toolkit", "warning", "nvidia-ctk does not tell its version", needed=f"{safe} or newer"),)
    if older(seen.version, _OLDEST):
        message = f"NVIDIA's container toolkit {seen.version} cannot write CDI specs"
        return (
            Finding(
                "toolkit",
                "failed",
                message,
                found=seen.version,
                needed=f"{oldest} or newer",
                commands=fix,
                hint=_REPOSITORY,
            ),
        )
    if older(seen.version, _SAFE):
        message = f"with {seen.version} a job's image can take over this machine (CVE-2025-23266)"
        return (
            Finding(
                "toolkit",
                "warning",
                message,
                found=seen.version,
                needed=f"{safe} or newer",
                commands=fix,
                hint=_REPOSITORY,
            ),
        )
    return (Finding("toolkit", "ok", "NVIDIA's container toolkit", found=seen.version, needed=f"{safe} or newer"),)
