"""systemd's services, behind an interface small enough that tests can make every call fail."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpurig.common.errors import PrerequisiteError
from gpurig.common.process import Finished, run
from gpurig.common.waiting import Clock, SystemClock, wait_for

# Where systemd runs the machine, this folder is there: sd_booted(3).
BOOTED = Path("/run/systemd/system")

_TIMEOUT_S = 90
# After SIGKILL a process is gone at once, but for one that waits for a dead disk.
_KILLED_S = 30
_POLL_S = 0.25
_GONE = frozenset({"inactive", "failed"})
_PROPERTIES = "ActiveState,SubState,NeedDaemonReload"


@dataclass(frozen=True)
class FoundService:
    """A service as systemd knows it.

    Attributes:
        status: its ActiveState: "active", "inactive", "activating", "deactivating", "failed" ….
        sub: its SubState: "running", "dead", "auto-restart" ….
        enabled: it starts at boot.
        stale: its file has changed since systemd read it.
    """

    name: str
    status: str
    sub: str = ""
    enabled: bool = False
    stale: bool = False

    @property
    def running(self) -> bool:
        """Its process is there."""
        return self.status in {"active", "reloading"}

    @property
    def gone(self) -> bool:
        """No process is there, and systemd means to start none."""
        return self.status in _GONE

    @property
    def ended(self) -> bool:
        """Its process is gone, whether or not systemd means to start another."""
        return self.gone or self.sub == "auto-restart"


class Services(Protocol):
    """What provisioning asks of systemd; every method raises PrerequisiteError where it fails.

    Units are named without ".service".
    """

    def check(self) -> None:
        """Fail now, before anything is made, where systemd does not run this machine, or this user may not tell it."""

    def find(self, name: str) -> FoundService:
        """A unit; one that does not exist is inactive."""

    def reload(self) -> None:
        """Read the unit files again."""

    def enable(self, name: str) -> None:
        """Start it at boot."""

    def disable(self, name: str) -> None:
        """Do not."""

    def start(self, name: str) -> None:
        """Start it; nothing where it runs."""

    def stop(self, name: str, *, wait_s: int) -> None:
        """Ask its process to end after its work, wait, then kill it; nothing where none runs."""

    def logs(self, name: str) -> str:
        """The last lines it wrote."""


class Systemd:
    """The machine's own, through systemctl."""

    def __init__(self, *, clock: Clock | None = None, booted: Path = BOOTED) -> None:
        """Ask nothing yet.

        Args:
            clock: for waiting.
            booted: the folder that is there where systemd runs.
        """
        self._clock = clock or SystemClock()
        self._booted = booted

    def check(self) -> None:
        """Fail now, before anything is made, where systemd does not run this machine, or this user may not tell it."""
        if not self._booted.is_dir():
            raise PrerequisiteError(
                "systemd does not run this machine, so it cannot run the runner",
                hint="leave out --service systemd (or --service container): the engine keeps the runner running",
            )
        if os.geteuid() != 0:
            raise PrerequisiteError(
                "a service of systemd takes root", hint="run it with sudo, or leave out --service systemd"
            )

    def find(self, name: str) -> FoundService:
        """A unit; one that does not exist is inactive."""
        shown = self._systemctl("show", f"--property={_PROPERTIES}", "--", f"{name}.service")
        # Not by `show`: of a unit that it has in memory, systemd tells what was so when it read it.
        enabled = self._unchecked("is-enabled", "--", f"{name}.service").stdout.strip()
        return parse_show(name, shown.stdout, enabled=enabled in {"enabled", "enabled-runtime"})

    def reload(self) -> None:
        """Read the unit files again."""
        self._systemctl("daemon-reload")

    def enable(self, name: str) -> None:
        """Start it at boot."""
        # systemd has read the file: another reload would only cost running containers their GPUs (doctor, "cgroup
        # driver").
        self._systemctl("enable", "--no-reload", "--quiet", "--", f"{name}.service")

    def disable(self, name: str) -> None:
        """Do not."""
        self._systemctl("disable", "--no-reload", "--quiet", "--", f"{name}.service")

    def start(self, name: str) -> None:
        """Start it; nothing where it runs."""
        self._systemctl("start", "--", f"{name}.service", hint=f"its log: journalctl -u {name}")

    def stop(self, name: str, *, wait_s: int) -> None:
        """Ask its process to end after its work, wait, then kill it; nothing where none runs."""
        unit = f"{name}.service"
        if self.find(name).gone:
            return
        # By hand, because systemd's own stop waits for as long as the unit says, and the caller may say more or less.
        # --kill-who is --kill-whom's name in older versions, and known to the newer. Whether a signal went through is
        # judged by what becomes of the process.
        self._unchecked("kill", "--kill-who=main", "--signal=SIGQUIT", "--", unit)
        ended = wait_for(lambda: self.find(name).ended, timeout_s=wait_s, interval_s=_POLL_S, clock=self._clock)
        self._systemctl("stop", "--no-block", "--", unit)
        if not ended:
            self._unchecked("kill", "--signal=SIGKILL", "--", unit)
        if not wait_for(lambda: self.find(name).gone, timeout_s=_KILLED_S, interval_s=_POLL_S, clock=self._clock):
            raise PrerequisiteError(f"the service {name} does not end", hint=f"look at it: systemctl status {name}")
        if self.find(name).status == "failed":
            # It was killed: systemd would remember that for ever, also when its file is gone.
            self._unchecked("reset-failed", "--", unit)

    def logs(self, name: str) -> str:
        """The last lines it wrote."""
        argv = ("journalctl", f"--unit={name}.service", "--lines=20", "--no-pager", "--output=cat", "--quiet")
        done = run(argv, timeout_s=_TIMEOUT_S)
        return done.stdout if done.code == 0 else ""

    def _systemctl(self, *words: str, hint: str = "") -> Finished:
        done = self._unchecked(*words)
        if done.code != 0:
            raise _problem(words, done, hint)
        return done

    def _unchecked(self, *words: str) -> Finished:
        return run(("systemctl", "--no-pager", "--no-ask-password", *words), timeout_s=_TIMEOUT_S)


def _problem(words: Sequence[str], done: Finished, hint: str) -> PrerequisiteError:
    said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    reason = said[0].strip()[:200] if said else f"it ended with {done.code}"
    command = " ".join(word for word in words if word != "--")
    return PrerequisiteError(
        f"systemctl {command}: {reason}", hint=hint or "what systemd says of it: journalctl --boot --unit=init.scope"
    )


def parse_show(name: str, text: str, *, enabled: bool = False) -> FoundService:
    """A service from what `systemctl show` prints: KEY=value lines, in any order; unknown keys are passed over."""
    values = dict(line.partition("=")[::2] for line in text.splitlines())
    return FoundService(
        name=name,
        status=values.get("ActiveState") or "inactive",
        sub=values.get("SubState", ""),
        enabled=enabled,
        stale=values.get("NeedDaemonReload") == "yes",
    )
