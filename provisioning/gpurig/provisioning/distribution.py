"""Which distribution a host runs, and how one installs and starts things on it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gpurig.provisioning.host import read_line

Family = Literal["debian", "ubuntu", "fedora", "arch", "unknown"]
Software = Literal["engine", "toolkit", "nvidia-driver", "gitlab-runner"]

# Names in the order in which a derivative is recognized: Ubuntu's own derivatives say "ubuntu debian".
_FAMILIES: tuple[tuple[str, Family], ...] = (
    ("ubuntu", "ubuntu"),
    ("debian", "debian"),
    ("fedora", "fedora"),
    ("rhel", "fedora"),
    ("centos", "fedora"),
    ("arch", "arch"),
)

# NVIDIA's toolkit comes from NVIDIA's own repository except on Arch; Fedora's driver comes from RPM Fusion, Debian's
# from non-free; gitlab-runner from GitLab's own repository except on Arch. docs/doctor.md says where each was looked
# up. RPM Fusion keeps NVML, nvidia-smi and CUDA's library in a package of their own; the others depend on theirs.
_PACKAGES: Mapping[Software, Mapping[Family, str]] = {
    "engine": {"debian": "docker.io", "ubuntu": "docker.io", "fedora": "moby-engine", "arch": "docker"},
    "toolkit": dict.fromkeys(("debian", "ubuntu", "fedora", "arch"), "nvidia-container-toolkit"),
    "gitlab-runner": dict.fromkeys(("debian", "ubuntu", "fedora", "arch"), "gitlab-runner"),
    "nvidia-driver": {
        "debian": "nvidia-driver",
        "fedora": "akmod-nvidia xorg-x11-drv-nvidia-cuda",
        "arch": "nvidia-open",
    },
}


@dataclass(frozen=True)
class Command:
    """A command that a person, or `gpurig up --install-missing`, can run.

    Attributes:
        argv: the program and its arguments; no shell reads them.
        by_hand: never run for the user: it reboots, ends what others run, deletes, or needs a decision.
        as_root: it needs root.
    """

    argv: tuple[str, ...]
    by_hand: bool = False
    as_root: bool = True

    def text(self, *, root: bool) -> str:
        """The command as one types it; with sudo where it needs root and the reader is not."""
        words = self.argv if root or not self.as_root else ("sudo", *self.argv)
        return shlex.join(words)


@dataclass(frozen=True)
class Distribution:
    """A distribution, as /etc/os-release describes it.

    Attributes:
        name: for people, for example "Debian GNU/Linux 12 (bookworm)"; "an unknown distribution" where nothing says.
        family: whose package manager it has.
        systemd: it runs; in containers and in some WSL2 installations it does not.
    """

    name: str = "an unknown distribution"
    family: Family = "unknown"
    systemd: bool = True

    def install(self, software: Software, *, by_hand: bool = False) -> tuple[Command, ...]:
        """The commands that install a software; none where this distribution, or its package, is not known."""
        if software == "nvidia-driver" and self.family == "ubuntu":
            return (Command(("ubuntu-drivers", "install"), by_hand=by_hand),)
        packages = _PACKAGES[software].get(self.family, "").split()
        if not packages:
            return ()
        if self.family in {"debian", "ubuntu"}:
            return (
                Command(("apt-get", "update"), by_hand=by_hand),
                Command(("apt-get", "install", "-y", *packages), by_hand=by_hand),
            )
        if self.family == "fedora":
            return (Command(("dnf", "install", "-y", *packages), by_hand=by_hand),)
        return (Command(("pacman", "-S", "--needed", "--noconfirm", *packages), by_hand=by_hand),)

    def start(self, service: str) -> tuple[Command, ...]:
        """Start a service now and, where systemd runs, at every boot."""
        if not self.systemd:
            return (Command(("service", service, "start")),)
        return (Command(("systemctl", "enable", "--now", service)),)

    def restart(self, service: str) -> tuple[Command, ...]:
        """Restart a service."""
        return (Command(("systemctl", "restart", service) if self.systemd else ("service", service, "restart")),)

    def keep_time(self) -> tuple[Command, ...]:
        """Set the clock by the network, from now on; none where systemd does not run: each has its own way."""
        return (Command(("timedatectl", "set-ntp", "true")),) if self.systemd else ()


def distribution(root: Path = Path("/")) -> Distribution:
    """The distribution below `root`; an unknown one where its os-release is missing or unreadable.

    Format: os-release(5).
    """
    text = read_line(root / "etc/os-release") or read_line(root / "usr/lib/os-release")
    return replace(parse_os_release(text), systemd=(root / "run/systemd/system").is_dir())


def parse_os_release(text: str) -> Distribution:
    """The distribution that an os-release describes; lines that are not `KEY=value` are passed over."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.lstrip().startswith("#"):
            values[key.strip()] = _unquoted(value)
    words = [values.get("ID", "").lower(), *values.get("ID_LIKE", "").lower().split()]
    # Its own name says more than what it is like.
    exact = [family for name, family in _FAMILIES if name == words[0]]
    alike = [family for name, family in _FAMILIES if name in words]
    families: list[Family] = [*exact, *alike, "unknown"]
    name = values.get("PRETTY_NAME") or values.get("NAME") or values.get("ID") or Distribution.name
    return Distribution(name=name, family=families[0])


def _unquoted(value: str) -> str:
    try:
        return " ".join(shlex.split(value))
    except ValueError:
        # An open quotation mark: take it as it stands.
        return value.strip()
