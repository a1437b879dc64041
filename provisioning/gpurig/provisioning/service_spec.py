"""The systemd unit that runs gitlab-runner from its package: a frozen value, and its text.

Formats: systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.syntax(7).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.errors import InputError

# Where an administrator's units lie; packages write elsewhere.
UNIT_DIR = Path("/etc/systemd/system")

# Sections that begin with X- are passed over by systemd: what gpurig must know again is kept there.
_SECTION = "X-Gpurig"
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - a unit's view of them

# The runner talks to GitLab and to the engine, and writes its own folders: nothing else of the machine is its. Jobs
# run in containers that the engine makes, so none of this reaches them. DAC_OVERRIDE stays, because an engine's socket
# or the folder of --root may be another user's.
_CONFINEMENT = (
    ("CapabilityBoundingSet", "CAP_DAC_OVERRIDE"),
    ("LockPersonality", "yes"),
    ("NoNewPrivileges", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectControlGroups", "yes"),
    # Credentials for registries may lie in root's ~/.docker/config.json, where gitlab-runner looks for them.
    ("ProtectHome", "read-only"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectSystem", "strict"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
)


@dataclass(frozen=True)
class ServiceSpec:
    """Everything that makes the runner's service what it is.

    Attributes:
        name: the unit's name without ".service".
        instance: the gpurig instance it belongs to.
        root: of that instance's files; two roots on one machine share its units' names.
        binary: gitlab-runner's program.
        version: the program's: a process that was started from another one is started anew.
        config: config.toml.
        folders: what the process may write to.
        working_dir: where gitlab-runner runs.
        environment: variables of the process.
        stop_s: seconds for running jobs to end where something else than gpurig stops it, a reboot for example.
        socket: the engine's.
    """

    name: str
    instance: str
    root: Path
    binary: Path
    version: str
    config: Path
    folders: tuple[Path, ...]
    working_dir: Path
    environment: tuple[tuple[str, str], ...] = ()
    stop_s: int = 3600
    socket: str = "/var/run/docker.sock"

    @property
    def unit(self) -> str:
        """As systemctl calls it."""
        return f"{self.name}.service"

    @property
    def path(self) -> Path:
        """Its file."""
        return unit_path(self.name)


def unit_path(name: str) -> Path:
    """The file of a unit, named without ".service"."""
    return UNIT_DIR / f"{name}.service"


def render_unit(spec: ServiceSpec) -> str:
    """The unit file's text.

    Raises:
        InputError: a path or variable cannot stand in one.
    """
    command = [str(spec.binary), "run", "--config", str(spec.config), "--working-directory", str(spec.working_dir)]
    service: list[tuple[str, str]] = [
        # The start has failed where the program cannot be run at all.
        ("Type", "exec"),
        ("ExecStart", " ".join(_quoted(word, command=True) for word in command)),
        *(("Environment", _quoted(f"{name}={value}")) for name, value in spec.environment),
        # SIGQUIT ends gitlab-runner after its jobs, SIGTERM before; only the process itself gets it.
        ("KillSignal", "SIGQUIT"),
        ("KillMode", "mixed"),
        # 0 would mean: for ever.
        ("TimeoutStopSec", str(max(spec.stop_s, 1))),
        ("Restart", "always"),
        ("RestartSec", "5"),
        ("UMask", "0077"),
        *_CONFINEMENT,
        *_temporary_files(spec),
        ("ReadWritePaths", " ".join(_quoted(str(folder)) for folder in spec.folders)),
    ]
    sections: list[tuple[str, Sequence[tuple[str, str]]]] = [
        (
            "Unit",
            (
                ("Description", _value(f"GitLab runner of gpurig's instance {spec.instance}")),
                ("Documentation", "https://docs.gitlab.com/runner/"),
                ("Wants", "network-online.target"),
                # Not Requires: an engine that is restarted must not stop the runner.
                ("After", "network-online.target docker.service"),
                ("StartLimitIntervalSec", "0"),
            ),
        ),
        ("Service", service),
        ("Install", (("WantedBy", "multi-user.target"),)),
        (
            _SECTION,
            (
                ("Instance", _value(spec.instance)),
                ("Root", _value(str(spec.root))),
                ("RunnerVersion", _value(spec.version)),
            ),
        ),
    ]
    lines = ["# Written by gpurig: `gpurig up` writes it again. Settings of yours: systemctl edit " + spec.unit]
    for title, values in sections:
        lines += ["", f"[{title}]", *(f"{key}={value}" for key, value in values)]
    return "\n".join(lines) + "\n"


def _temporary_files(spec: ServiceSpec) -> list[tuple[str, str]]:
    """A /tmp of its own, unless something that it needs lies in the machine's."""
    needed = (*spec.folders, spec.binary, Path(spec.socket))
    shared = any(one.is_relative_to(temporary) for one in needed for temporary in _TEMPORARY)
    return [] if shared else [("PrivateTmp", "yes")]


def _value(text: str) -> str:
    if not text.isprintable():
        raise InputError(
            "a path or a variable of the service holds a character that no unit file can",
            hint="choose a --root, --runner-binary and proxies without line ends and control characters",
        )
    return text.replace("%", "%%")


def _quoted(text: str, *, command: bool = False) -> str:
    """A word as systemd takes it for one, expanding nothing in it."""
    escaped = _value(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped.replace("$", "$$") if command else escaped}"'


def unit_owner(text: str) -> tuple[str, str] | None:
    """The instance and the root that a unit file was written for; None for a stranger's."""
    _, found, marks = text.partition(f"\n[{_SECTION}]\n")
    values = dict(line.partition("=")[::2] for line in marks.splitlines())
    if not found or "Instance" not in values or "Root" not in values:
        return None
    return values["Instance"].replace("%%", "%"), values["Root"].replace("%%", "%")


def same_process(text: str, spec: ServiceSpec) -> bool:
    """Whether a process that a unit file started is the one that `spec` would: only how it is stopped may differ."""
    stop = re.search(r"^TimeoutStopSec=(\d{1,9})$", text, re.MULTILINE)
    return stop is not None and render_unit(dataclasses.replace(spec, stop_s=int(stop[1]))) == text
